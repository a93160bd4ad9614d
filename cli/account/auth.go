package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"claudemesh/mesh"
	"claudemesh/wire"
)

const (
	authName = "auth.json"
	maxAuth  = 1 << 20
)

// Errors of the file.
var (
	// ErrSignedOut is returned by LoadAuth when there is no auth.json.
	ErrSignedOut = errors.New("not signed in to a broker")
	// ErrAuthCorrupt is wrapped when there is one that cannot be understood. It is left as it is.
	ErrAuthCorrupt = errors.New("auth.json cannot be understood")
)

// Ways in which a token was got.
const (
	SourceDevice   = "device-code"
	SourceRegister = "register" // ours
)

// Auth is auth.json: the first four keys are the reference's. Printing it shows the account's name only.
type Auth struct {
	SessionToken string    `json:"session_token"`
	User         wire.User `json:"user"`
	TokenSource  string    `json:"token_source"`
	StoredAt     string    `json:"stored_at"` // wire.TimeFormat

	BrokerURL string        `json:"broker_url"` // ws or wss
	ExpiresAt string        `json:"expires_at,omitempty"`
	DeviceKey string        `json:"device_key,omitempty"` // secret key of this machine, 128 hex digits
	Trusted   []TrustedPeer `json:"trusted,omitempty"`
}

// TrustedPeer is another machine of the account, for which this one seals its memberships and whose it takes.
type TrustedPeer struct {
	Pubkey string `json:"pubkey"`
	Name   string `json:"name,omitempty"`
}

// AuthPath is the file in a configuration directory.
func AuthPath(dir string) string { return filepath.Join(dir, authName) }

// LoadAuth reads it. Errors: ErrSignedOut, ErrAuthCorrupt, the file's.
func LoadAuth(dir string) (*Auth, error) {
	f, err := os.Open(AuthPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrSignedOut
	}
	if err != nil {
		return nil, fmt.Errorf("read session token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAuth+1))
	if err != nil {
		return nil, fmt.Errorf("read session token: %w", err)
	}
	a := new(Auth)
	// The decoder's message may quote the file.
	if len(text) > maxAuth || json.Unmarshal(text, a) != nil || a.SessionToken == "" {
		return nil, fmt.Errorf("%w: %s", ErrAuthCorrupt, AuthPath(dir))
	}
	return a, nil
}

// Save writes the file, 0600.
func (a *Auth) Save(dir string) error {
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("encode session token: %w", err)
	}
	return mesh.WritePrivate(AuthPath(dir), append(text, '\n'))
}

// Forget removes the file.
func Forget(dir string) error {
	if err := os.Remove(AuthPath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove session token: %w", err)
	}
	return nil
}

// Device is this machine's key; the zero Identity when the file has none.
func (a *Auth) Device() (mesh.Identity, error) {
	if a.DeviceKey == "" {
		return mesh.Identity{}, nil
	}
	id, err := mesh.IdentityFromSecret(a.DeviceKey)
	if err != nil {
		return mesh.Identity{}, fmt.Errorf("%w: device key", ErrAuthCorrupt)
	}
	return id, nil
}

// Trust adds a machine, or gives it another name. It reports whether it is new.
func (a *Auth) Trust(p TrustedPeer) bool {
	if i := slices.IndexFunc(a.Trusted, func(o TrustedPeer) bool { return o.Pubkey == p.Pubkey }); i >= 0 {
		if p.Name != "" {
			a.Trusted[i].Name = p.Name
		}
		return false
	}
	a.Trusted = append(a.Trusted, p)
	return true
}

// Trusts reports whether a key is that of a trusted machine.
func (a *Auth) Trusts(pubkey string) bool {
	return slices.ContainsFunc(a.Trusted, func(o TrustedPeer) bool { return o.Pubkey == pubkey })
}

// Distrust drops a machine.
func (a *Auth) Distrust(pubkey string) {
	a.Trusted = slices.DeleteFunc(a.Trusted, func(o TrustedPeer) bool { return o.Pubkey == pubkey })
}

func (a Auth) shown() string { return fmt.Sprintf("auth(%q at %s)", a.User.DisplayName, a.BrokerURL) }

// String shows account and broker.
func (a Auth) String() string { return a.shown() }

// Format shows account and broker under every verb.
func (a Auth) Format(f fmt.State, _ rune) { io.WriteString(f, a.shown()) }

// LogValue shows account and broker.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.shown()) }
