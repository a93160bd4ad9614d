package cli

import (
	"context"

	"claudemesh/bus"
)

// onMesh runs ask with the mesh the verb is about and a connection to the daemon. A link to the broker that is just being opened gets a moment.
func (c *call) onMesh(ctx context.Context, ask func(ctx context.Context, n *conn, slug string) error) error {
	slug, err := c.mesh(ctx, true)
	if err != nil {
		return err
	}
	n, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	return n.whenOpen(ctx, c.clock, slug, func() error { return ask(ctx, n, slug) })
}

// broker asks the broker of a mesh one thing: op with the fields of in, the answer into out (nil to ignore it).
func (n *conn) broker(ctx context.Context, slug, op string, in, out any) error {
	return n.Do(ctx, bus.CallSubject(slug, n.actor, op), in, out)
}

// askBroker is onMesh for the verbs that are one call; it returns the mesh that was asked.
func (c *call) askBroker(ctx context.Context, op string, in, out any) (slug string, err error) {
	err = c.onMesh(ctx, func(ctx context.Context, n *conn, s string) error {
		slug = s
		return n.broker(ctx, s, op, in, out)
	})
	return slug, err
}
