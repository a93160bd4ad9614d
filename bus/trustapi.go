package bus

// This file is the part of the local API that is about whose word is taken for whose. The rules of api.go hold.

// Operations. OpTrustConfirm is the user's only.
const (
	OpTrust        = "trust"         // TrustQuery: TrustList
	OpTrustConfirm = "trust-confirm" // TrustConfirm: TrustState
)

// What this machine knows of a member key under a name.
const (
	TrustNew      = "new"      // never met before
	TrustKnown    = "known"    // met before, and the name was not another's
	TrustVerified = "verified" // the user has compared the safety number, or it is this member itself
	TrustChanged  = "changed"  // the name belonged to another member's key, and the user has not confirmed this one
)

// MaxTrustRefs bounds one TrustQuery.
const MaxTrustRefs = 1000

// TrustRef is a member key and the names it is about.
type TrustRef struct {
	MemberKey string   `json:"member_key"`
	Names     []string `json:"names"`
}

// TrustQuery asks about members of a mesh. Asking is no contact.
type TrustQuery struct {
	Mesh    string     `json:"mesh"`
	Members []TrustRef `json:"members"`
}

// TrustConfirm says that the user has compared the safety number of this member, who goes by these names.
type TrustConfirm struct {
	Mesh string `json:"mesh"`
	TrustRef
}

// TrustState is what is known of one member. Was are the keys that its names belong to when State is changed.
type TrustState struct {
	MemberKey   string   `json:"member_key"`
	State       string   `json:"state"`
	Was         []string `json:"was,omitempty"`
	FirstSeenAt string   `json:"first_seen_at,omitempty"` // ISO-8601 UTC
	VerifiedAt  string   `json:"verified_at,omitempty"`   // ISO-8601 UTC
}

// TrustList answers TrustQuery in its order.
type TrustList struct {
	Members []TrustState `json:"members"`
}
