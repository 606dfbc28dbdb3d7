//go:build !linux

package upstream

type asking struct{}

func (c *conn) ask(request, answer []byte) (int, error) { return c.askSlowly(request, answer) }
