package bus

import (
	"fmt"
	"slices"

	"claudemesh/mesh"
)

// capSends is what a capability adds beside calls: kinds of send. The calls are in mesh.OpsOf.
func capSends(capability string) []string {
	switch capability {
	case mesh.CapDM:
		return []string{SendDM}
	case mesh.CapBroadcast:
		return []string{SendGroup, SendTopic, SendAll}
	}
	return nil
}

// capSubjects are the publish subjects of a limited session under one mesh token (a slug or "*").
func capSubjects(slug, actor string, caps []string) ([]string, error) {
	var out []string
	calls := func(ops []string) {
		for _, op := range ops {
			out = append(out, pattern("mesh", slug, actor, "call", op))
		}
	}
	calls(mesh.OpsOf(""))
	for _, c := range caps {
		if !slices.Contains(mesh.Capabilities(), c) {
			return nil, fmt.Errorf("%w: unknown capability %q", ErrBadGrant, c)
		}
		for _, kind := range capSends(c) {
			out = append(out, pattern("mesh", slug, actor, "send", kind))
		}
		calls(mesh.OpsOf(c))
	}
	return out, nil
}
