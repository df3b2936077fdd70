package router

// Names returns the names of the routes, as Decision has them, in their order.
func (t *Table) Names() []string {
	names := make([]string, len(t.routes))
	for i, r := range t.routes {
		names[i] = r.name()
	}
	return names
}
