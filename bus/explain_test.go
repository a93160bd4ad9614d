package bus

import (
	"errors"
	"strings"
	"testing"

	"claudemesh/mesh"
)

func TestWhatARefusedSubjectNeeds(t *testing.T) {
	for _, c := range []struct{ subject, slug, capability, what string }{
		{"mesh.team.s1.send.dm", "team", mesh.CapDM, "a message to one peer"},
		{"mesh.team.s1.send.group", "team", mesh.CapBroadcast, "a message to a group"},
		{"mesh.team.s1.send.topic", "team", mesh.CapBroadcast, "a message to a topic"},
		{"mesh.team.s1.send.all", "team", mesh.CapBroadcast, "a message to everybody"},
		{"mesh.team.s1.call.set_state", "team", mesh.CapStateWrite, "set_state"},
		{"mesh.team.s1.call.list_peers", "team", "", "list_peers"},
		{"mesh.team.s1.call.fly", "team", "", "fly"},
		{"mesh.team.s2.call.set_state", "", "", ""}, // another's
		{"mesh.team.s1.msg.x", "", "", ""},
		{"daemon.s1.shutdown", "", "", ""},
		{"", "", "", ""},
	} {
		slug, op, isCall := meshRequest(c.subject, "s1")
		if slug != c.slug {
			t.Errorf("%s is about mesh %q", c.subject, slug)
		}
		if slug == "" {
			continue
		}
		if capability, what := needs(op, isCall); capability != c.capability || what != c.what {
			t.Errorf("%s needs %q for %q", c.subject, capability, what)
		}
	}
}

func TestADenialIsARefusal(t *testing.T) {
	var err error = &DeniedError{"mesh.team.s1.call.set_state", MissingCapability(mesh.CapStateWrite, "set_state", []string{mesh.CapDM})}
	var api *APIError
	if !errors.Is(err, ErrDenied) || !errors.As(err, &api) || api.Reason != ReasonCapability || !strings.Contains(err.Error(), "state-write that set_state needs") {
		t.Errorf("%v", err)
	}
	var lack Lack
	if derr := api.DecodeData(&lack); derr != nil || lack.Capability != mesh.CapStateWrite || len(lack.Has) != 1 {
		t.Errorf("%+v, %v", lack, derr)
	}
}
