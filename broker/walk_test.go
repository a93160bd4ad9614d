package broker

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The table over real connections and requests: every operation by everybody, each in a mesh of its own, with nothing in the frame. What comes back is
// "forbidden" exactly where the table says so; whatever else is wrong with an empty frame is found out later.
func TestTheTableHoldsOnTheWire(t *testing.T) {
	r := newRig(t)
	for op := range rules {
		if op == routeTicket { // a ticket stands for its maker; files_test.go has what becomes of it
			continue
		}
		t.Run(op, func(t *testing.T) {
			var err error
			if r.mesh, err = r.broker.CreateMesh(t.Context(), "walk", r.owner.PublicKey(), "alice"); err != nil {
				t.Fatal(err)
			}
			people := map[role]mesh.Identity{roleOwner: r.owner, roleAdmin: r.addAdmin("ann"), roleMember: r.addMember("bob"), nobody: r.addMember("mallory")}
			for _, who := range []role{nobody, roleMember, roleAdmin, roleOwner} { // the owner last: some requests end the mesh
				want := who < rules[op].own || who == nobody
				var code string
				switch method, path, isRoute := strings.Cut(op, " "); {
				case !isRoute:
					code = r.walkFrame(people[who], who, op)
				case rules[op].key != "":
					code = r.walkKey(people[who], who, rules[op].key, method, path)
				default:
					code = r.walkSigned(people[who], who, method, path)
				}
				if got := code == "forbidden"; got != want {
					t.Errorf("%s: %q, forbidden must be %v", who, code, want)
				}
			}
		})
	}
}

// revokedBehindItsBack marks a member as banned while its connection stays: what is checked is the request, not the socket.
func (r *rig) revokedBehindItsBack(who mesh.Identity) {
	r.broker.mu.Lock()
	defer r.broker.mu.Unlock()
	r.broker.meshes[r.mesh.ID].members[who.PublicKey()].RevokedAt = 1
}

func (r *rig) walkFrame(id mesh.Identity, who role, op string) string {
	c := r.member(id)
	if who == nobody {
		r.revokedBehindItsBack(id)
	}
	defer c.close()
	const reqID = "walk"
	c.write(map[string]any{"type": op, "_reqId": reqID})
	e := into[wire.Error](c, c.next(func(h wire.Head, _ []byte) bool { return h.ReqID == reqID }))
	return e.Code
}

func (r *rig) walkPath(path string) string {
	path = strings.NewReplacer("{meshId}", r.mesh.ID, "{slug}", r.mesh.Slug).Replace(path)
	for {
		from := strings.IndexByte(path, '{')
		if from < 0 {
			return path
		}
		path = path[:from] + "x" + path[from+strings.IndexByte(path[from:], '}')+1:]
	}
}

// walkSigned calls unauthorized what is: whom no mesh knows is not told what it may not do.
func (r *rig) walkSigned(id mesh.Identity, who role, method, path string) string {
	if who == nobody {
		r.revokedBehindItsBack(id)
	}
	status, got := r.do(id, method, r.walkPath(path), map[string]any{})
	if status == http.StatusUnauthorized && who == nobody {
		return "forbidden"
	}
	return fmt.Sprint(got["error"])
}

// walkKey makes the request with a key that has the capability, and with one that has all others.
func (r *rig) walkKey(id mesh.Identity, who role, need, method, path string) string {
	c := r.member(id)
	defer c.close()
	key := c.newKey(need)
	others := slices.DeleteFunc([]string{wire.KeySend, wire.KeyRead, wire.KeyStateWrite}, func(s string) bool { return s == need })
	if who == nobody {
		r.revokedBehindItsBack(id)
	} else if status, got := r.withKey(c.newKey(others...).Secret, method, r.walkPath(path)); status != http.StatusForbidden || got["code"] != codeKeyCapability {
		r.t.Errorf("%s %s without %s: %d %v", method, path, need, status, got)
	}
	status, got := r.withKey(key.Secret, method, r.walkPath(path))
	if status == http.StatusUnauthorized && who == nobody {
		return "forbidden"
	}
	return strings.TrimPrefix(fmt.Sprint(got["code"]), "error.")
}
