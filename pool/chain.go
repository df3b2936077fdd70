package pool

// chain is a list of waiters. It has no memory of its own: each waiter brings
// the knots with which it stands in one.
type chain struct {
	front, back *knot
	length      int
}

// knot is the place of a waiter in a chain.
type knot struct {
	waiter     *waiter
	prev, next *knot
}

func (c *chain) pushBack(k *knot) {
	k.prev, k.next = c.back, nil
	if c.back != nil {
		c.back.next = k
	} else {
		c.front = k
	}
	c.back = k
	c.length++
}

func (c *chain) pushFront(k *knot) {
	k.prev, k.next = nil, c.front
	if c.front != nil {
		c.front.prev = k
	} else {
		c.back = k
	}
	c.front = k
	c.length++
}

func (c *chain) remove(k *knot) {
	if k.prev != nil {
		k.prev.next = k.next
	} else {
		c.front = k.next
	}
	if k.next != nil {
		k.next.prev = k.prev
	} else {
		c.back = k.prev
	}
	k.prev, k.next = nil, nil
	c.length--
}
