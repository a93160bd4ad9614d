package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// ErrConfigCorrupt is wrapped when config.json exists and cannot be understood.
// The file is left as it is: it may hold the only copy of a member key.
var ErrConfigCorrupt = errors.New("config.json cannot be understood")

// configVersion is the only format there is.
const configVersion = 1

// Config is config.json: the meshes this user joined and how to appear in them.
// Keys unknown to this version, here and in each mesh, survive an update.
// Printing or logging it shows slugs only; marshalling it shows the secrets.
type Config struct {
	Meshes      []Joined
	DisplayName string
	Role        string
	Groups      []Group
	MessageMode string // "push", "inbox" or "off"; "" means push
	AccountID   string

	extra map[string]json.RawMessage
}

// Joined is one membership: the mesh, the member's key pair, and where its broker
// is. JoinedAt is ISO 8601 in UTC. RootKey is 32 bytes in unpadded base64url, or ""
// where the join did not keep it. InviteVersion is 0 when unknown.
type Joined struct {
	MeshID        string
	MemberID      string
	Slug          string
	Name          string
	Pubkey        string
	SecretKey     string
	BrokerURL     string
	JoinedAt      string
	RootKey       string
	InviteVersion int

	extra map[string]json.RawMessage
}

// Identity returns the member's key pair. It returns [ErrBadSecret] for a secret
// that is malformed or belongs to another public key than the entry names.
func (j Joined) Identity() (Identity, error) {
	id, err := IdentityFromSecret(j.SecretKey)
	if err != nil {
		return Identity{}, fmt.Errorf("mesh %q: %w", j.Slug, err)
	}
	if id.PublicKey() != j.Pubkey {
		return Identity{}, fmt.Errorf("mesh %q: %w: it belongs to another public key", j.Slug, ErrBadSecret)
	}
	return id, nil
}

// Mesh returns the entry of a slug.
func (c *Config) Mesh(slug string) (Joined, bool) {
	if i := c.index(slug); i >= 0 {
		return c.Meshes[i], true
	}
	return Joined{}, false
}

// Put adds an entry, or replaces the one of the same slug. Unknown keys of the old
// entry stay when it is the same mesh.
func (c *Config) Put(j Joined) {
	i := c.index(j.Slug)
	if i < 0 {
		c.Meshes = append(c.Meshes, j)
		return
	}
	if old := c.Meshes[i]; j.extra == nil && old.MeshID == j.MeshID {
		j.extra = old.extra
	}
	c.Meshes[i] = j
}

// Remove drops the entry of a slug and reports whether there was one.
func (c *Config) Remove(slug string) bool {
	i := c.index(slug)
	if i < 0 {
		return false
	}
	c.Meshes = slices.Delete(c.Meshes, i, i+1)
	return true
}

// Slugs lists the joined meshes in the order of the file.
func (c *Config) Slugs() []string {
	slugs := make([]string, 0, len(c.Meshes))
	for _, j := range c.Meshes {
		slugs = append(slugs, j.Slug)
	}
	return slugs
}

func (c *Config) index(slug string) int {
	return slices.IndexFunc(c.Meshes, func(j Joined) bool { return j.Slug == slug })
}

// UnmarshalJSON reads the file. Missing keys are zero values. It wraps
// [ErrConfigCorrupt] for text that is no JSON object, a known key of another type,
// a version newer than this program, and "meshes" that is no array. The reference
// takes the last for "no meshes" and writes the loss down with the next change;
// here a damaged list is an error, so that nobody's keys are dropped.
func (c *Config) UnmarshalJSON(text []byte) error {
	d := newFieldReader(text)
	version := configVersion
	d.read("version", &version)
	meshes := []Joined{}
	if raw, ok := d.fields["meshes"]; ok && (len(raw) == 0 || raw[0] != '[') {
		d.fail("meshes", errors.New("not an array"))
	}
	d.read("meshes", &meshes)
	out := Config{Meshes: meshes}
	d.read("displayName", &out.DisplayName)
	d.read("role", &out.Role)
	d.read("groups", &out.Groups)
	d.read("messageMode", &out.MessageMode)
	d.read("accountId", &out.AccountID)
	if version != configVersion {
		d.fail("version", fmt.Errorf("%d is not the %d this program knows", version, configVersion))
	}
	out.extra = d.fields
	if d.err != nil {
		return fmt.Errorf("%w: %w", ErrConfigCorrupt, d.err)
	}
	*c = out
	return nil
}

// MarshalJSON writes the file's object: known keys in the order of the schema,
// empty optional ones left out, then the unknown ones.
func (c Config) MarshalJSON() ([]byte, error) {
	var w fieldWriter
	w.write("version", configVersion)
	meshes := c.Meshes
	if meshes == nil {
		meshes = []Joined{}
	}
	w.write("meshes", meshes)
	w.writeUnlessEmpty("displayName", c.DisplayName)
	w.writeUnlessEmpty("role", c.Role)
	if len(c.Groups) > 0 {
		w.write("groups", c.Groups)
	}
	w.writeUnlessEmpty("messageMode", c.MessageMode)
	w.writeUnlessEmpty("accountId", c.AccountID)
	return w.finish(c.extra)
}

// UnmarshalJSON reads one entry of "meshes".
func (j *Joined) UnmarshalJSON(text []byte) error {
	d := newFieldReader(text)
	var out Joined
	d.read("meshId", &out.MeshID)
	d.read("memberId", &out.MemberID)
	d.read("slug", &out.Slug)
	d.read("name", &out.Name)
	d.read("pubkey", &out.Pubkey)
	d.read("secretKey", &out.SecretKey)
	d.read("brokerUrl", &out.BrokerURL)
	d.read("joinedAt", &out.JoinedAt)
	d.read("rootKey", &out.RootKey)
	d.read("inviteVersion", &out.InviteVersion)
	out.extra = d.fields
	if d.err != nil {
		return d.err
	}
	*j = out
	return nil
}

// MarshalJSON writes one entry of "meshes", its secret key included.
func (j Joined) MarshalJSON() ([]byte, error) {
	var w fieldWriter
	w.write("meshId", j.MeshID)
	w.write("memberId", j.MemberID)
	w.write("slug", j.Slug)
	w.write("name", j.Name)
	w.write("pubkey", j.Pubkey)
	w.write("secretKey", j.SecretKey)
	w.write("brokerUrl", j.BrokerURL)
	w.write("joinedAt", j.JoinedAt)
	w.writeUnlessEmpty("rootKey", j.RootKey)
	if j.InviteVersion != 0 {
		w.write("inviteVersion", j.InviteVersion)
	}
	return w.finish(j.extra)
}

func (j Joined) shown() string { return fmt.Sprintf("mesh(%q as %s)", j.Slug, j.Pubkey) }

// String shows slug and public key.
func (j Joined) String() string { return j.shown() }

// Format shows slug and public key under every verb.
func (j Joined) Format(f fmt.State, _ rune) { io.WriteString(f, j.shown()) }

// LogValue shows slug and public key.
func (j Joined) LogValue() slog.Value { return slog.StringValue(j.shown()) }

// String shows the slugs.
func (c Config) String() string { return fmt.Sprintf("config(%q)", c.Slugs()) }

// LogValue shows the slugs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
