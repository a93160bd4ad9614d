package wire

import (
	"fmt"
	"slices"

	"claudemesh/mesh"
)

// Grants: what each sender may do with a member, kept per recipient. The frames are ours; the reference has the HTTP route only.
const (
	TypeGrantsGet    = "grants_get"
	TypeGrantsSet    = "grants_set"
	TypeGrantsResult = "grants_result"
)

// AckBlocked is the machine name of a send that the recipient's grants refuse, in Ack.Code.
const AckBlocked = "blocked"

// MaxGrants bounds the entries of one member.
const MaxGrants = 2048

// GrantCapabilities are the capabilities a grant may hold. Only dm and broadcast decide about messages; the others are kept for the reference's clients.
func GrantCapabilities() []string {
	return []string{"read", mesh.CapDM, mesh.CapBroadcast, "state-read", "state-write", "file-read"}
}

// DefaultGrant is what a sender without an entry may do.
func DefaultGrant() []string { return []string{"read", mesh.CapDM, mesh.CapBroadcast, "state-read"} }

// Grants maps a sender's member key to its capabilities. An empty list blocks the sender; nil, in a change, removes the entry.
type Grants map[string][]string

// Validate checks keys, names and counts.
func (g Grants) Validate() error {
	if len(g) > MaxGrants {
		return fmt.Errorf("%w: more than %d grants", ErrInvalid, MaxGrants)
	}
	known := GrantCapabilities()
	for key, caps := range g {
		if !mesh.ValidKey(key) {
			return fmt.Errorf("%w: %.80q is no key", ErrInvalid, key)
		}
		for i, c := range caps {
			if !slices.Contains(known, c) || slices.Contains(caps[:i], c) {
				return fmt.Errorf("%w: capability %.80q is unknown or named twice", ErrInvalid, c)
			}
		}
	}
	return nil
}

// GrantsSet changes the caller's own grants: the entries named, no others.
type GrantsSet struct {
	Type   string `json:"type"`
	Grants Grants `json:"grants"`
	ReqID  string `json:"_reqId,omitempty"`
}

// Validate checks the change.
func (g GrantsSet) Validate() error {
	if g.Grants == nil {
		return fmt.Errorf("%w: grants missing", ErrInvalid)
	}
	return g.Grants.Validate()
}

// GrantsResult answers GrantsSet and grants_get with all entries.
type GrantsResult struct {
	Type    string   `json:"type"`
	Grants  Grants   `json:"grants"`
	Default []string `json:"default"` // of senders without an entry
	ReqID   string   `json:"_reqId,omitempty"`
}
