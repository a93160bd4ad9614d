package broker

import (
	"slices"
	"strings"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

func TestEveryOperationHasARule(t *testing.T) {
	for op := range ops {
		if _, ok := rules[op]; !ok {
			t.Errorf("%s is served and has no rule", op)
		}
		if _, ok := mesh.OpCapability(op); !ok && op != wire.TypeSend {
			t.Errorf("%s is served, and no capability stands for it", op)
		}
	}
}

// The whole table: every operation, every role, own objects and others', member and session, each single capability and none.
func TestTheTable(t *testing.T) {
	for op, r := range rules {
		need, known := mesh.OpCapability(op)
		for who := nobody; who <= roleOwner; who++ {
			for _, own := range []bool{true, false} {
				least := r.own
				if !own {
					least = r.any
				}
				byRole := least != nobody && who >= least
				check := func(name string, w caller, want bool) {
					t.Helper()
					if no := w.allowed(op, own); (no == nil) != want {
						t.Errorf("%s, own %v, %s %s: allowed %v, want %v", op, own, who, name, no == nil, want)
					}
				}
				check("itself", caller{role: who}, byRole)
				if strings.Contains(op, " ") { // a route: sessions do not sign HTTP requests
					continue
				}
				check("in a session", caller{role: who, session: true}, byRole && !r.direct)
				if !known && op != wire.TypeSend { // an HTTP route, which no limited session can call
					check("in a limited session", caller{role: who, session: true, caps: mesh.Capabilities()}, false)
					continue
				}
				none := need == "" || op == wire.TypeSend
				check("in a session without capabilities", caller{role: who, session: true, caps: []string{}}, byRole && !r.direct && none)
				for _, c := range mesh.Capabilities() {
					check("in a session with "+c, caller{role: who, session: true, caps: []string{c}}, byRole && !r.direct && (none || c == need))
				}
				all := slices.Clone(mesh.Capabilities())
				check("in a session with all", caller{role: who, session: true, caps: all}, byRole && !r.direct)
			}
		}
	}
	t.Run("an operation without a row is refused to the owner, too", func(t *testing.T) {
		if (caller{role: roleOwner}).allowed("fly", true) == nil {
			t.Error("allowed")
		}
	})
}
