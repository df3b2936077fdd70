package router

// RouteNames returns the names of the routes, as Decision has them, in their
// order.
func (t *Table) RouteNames() []string {
	names := make([]string, len(t.routes))
	for i, r := range t.routes {
		names[i] = r.name()
	}
	return names
}
