package outbox

import (
	"errors"
	"testing"
)

func TestFindTakesAnyIDOfAMessageAndTheBeginningOfOne(t *testing.T) {
	s, _ := openTest(t)
	row := accept(t, s, message("client-0001", "bob"))
	claim(t, s, 10)
	if err := s.Sent(t.Context(), row.ID, "Broker0000000001"); err != nil {
		t.Fatal(err)
	}
	accept(t, s, message("client-0002", "bob"))
	accept(t, s, message("client-000", "bob")) // a full id that others begin with
	for _, c := range []struct {
		name, ref, actor, mesh string
		want                   string
		err                    error
	}{
		{"its own id", row.ID, "", "", "client-0001", nil},
		{"the sender's id", "client-0001", "", "", "client-0001", nil},
		{"the broker's id", "Broker0000000001", "", "", "client-0001", nil},
		{"the beginning of the broker's id", "Broker00", "", "", "client-0001", nil},
		{"a full id before a beginning", "client-000", "", "", "client-000", nil},
		{"a beginning that several have", "client-00", "", "", "", ErrAmbiguousPrefix},
		{"a beginning that is too short", "Broker0", "", "", "", ErrNotFound},
		{"somebody else's message", "client-0001", "nobody", "", "", ErrNotFound},
		{"another mesh", "client-0001", "", "other", "", ErrNotFound},
		{"a wildcard", "client-%", "", "", "", ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := s.Find(t.Context(), c.ref, c.actor, c.mesh)
			if !errors.Is(err, c.err) || got.ClientMessageID != c.want {
				t.Errorf("%q, %v", got.ClientMessageID, err)
			}
		})
	}
	if got, ok, err := s.ByBroker(t.Context(), row.Mesh, "Broker0000000001"); err != nil || !ok || got.ID != row.ID {
		t.Errorf("%+v %v %v", got, ok, err)
	}
	if _, ok, err := s.ByBroker(t.Context(), "other", "Broker0000000001"); err != nil || ok {
		t.Errorf("on another mesh: %v %v", ok, err)
	}
}
