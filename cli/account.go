package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/cli/account"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What the verbs of accounts share: which broker, which token, and what a refusal means.

const brokerEnv = "CLAUDEMESH_BROKER_URL"

func accountBrokerFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "broker", Usage: "the broker at this `URL` (ws, wss, http or https; default " + brokerEnv + ", else the one that your meshes are on)"}
}

func (c *call) configDir() (string, error) { return mesh.ConfigDir(c.getenv) }

// userOnly refuses what concerns the user's keys to a session: it was given less than the user may.
func (c *call) userOnly() error {
	if c.inSession() {
		return &failure{Code: "forbidden", Message: "only the user may do this, not a session", Hint: "run it outside of the session", Exit: exitPermission}
	}
	return nil
}

// signedIn reads auth.json and makes a client of it.
func (c *call) signedIn() (dir string, a *account.Auth, client *account.Client, err error) {
	if err := c.userOnly(); err != nil {
		return "", nil, nil, err
	}
	if dir, err = c.configDir(); err != nil {
		return "", nil, nil, err
	}
	if a, err = account.LoadAuth(dir); err != nil {
		return dir, nil, nil, err
	}
	client, err = c.accountClient(dir, a.BrokerURL, a.SessionToken)
	return dir, a, client, err
}

func (c *call) accountClient(dir, brokerURL, token string) (*account.Client, error) {
	trust, err := c.trust(dir)
	return &account.Client{BrokerURL: brokerURL, Token: token, TLS: trust, Clock: c.clock}, err
}

// trust is whom to believe at wss:// addresses, as the daemon does: nil for the system's authorities.
func (c *call) trust(dir string) (*tls.Config, error) {
	path := c.getenv(caEnv)
	if path == "" {
		path = filepath.Join(dir, "ca.pem")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	return bridge.TrustFile(path)
}

// brokerURL is the broker that is meant, as a ws or wss URL: --broker, the environment, else the only one that meshes are joined on.
func (c *call) brokerURL(config *mesh.Config) (string, error) {
	at := c.cmd.String("broker")
	if at == "" {
		at = c.getenv(brokerEnv)
	}
	if at == "" {
		var urls []string
		for _, j := range config.Meshes {
			if !slices.Contains(urls, j.BrokerURL) {
				urls = append(urls, j.BrokerURL)
			}
		}
		if len(urls) != 1 {
			return "", &usageError{message: "which broker?", hint: "name it: --broker wss://HOST/ws, or set " + brokerEnv + "\nan account is for a broker that several machines share; a mesh of your own needs none"}
		}
		return urls[0], nil
	}
	if rest, ok := strings.CutPrefix(at, "http"); ok {
		at = "ws" + rest
	}
	u, err := url.Parse(at)
	if err != nil || !mesh.ValidBrokerURL(at) {
		return "", usagef("--broker is a ws://, wss://, http:// or https:// URL, not %s", quoted(at))
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/ws"
	}
	return u.String(), nil
}

// sameBroker reports whether two URLs name one broker.
func sameBroker(a, b string) bool {
	x, errX := bridge.HTTPBase(a)
	y, errY := bridge.HTTPBase(b)
	return errX == nil && errY == nil && strings.TrimSuffix(x, "/") == strings.TrimSuffix(y, "/")
}

// thisDevice is what this machine says about itself.
func thisDevice(key mesh.Identity) wire.Device {
	host, _ := os.Hostname() // a machine without a name has none to tell
	return wire.Device{Hostname: host[:min(len(host), wire.MaxDeviceText)], Platform: runtime.GOOS, Arch: runtime.GOARCH, Pubkey: key.PublicKey()}
}

// keepAuth stores a new token.
func (c *call) keepAuth(dir, brokerURL, source, token, expires string, user wire.User, key mesh.Identity) (*account.Auth, error) {
	a := &account.Auth{
		SessionToken: token, User: user, TokenSource: source, StoredAt: wire.Timestamp(c.clock.Now()), BrokerURL: brokerURL, ExpiresAt: expires,
		DeviceKey: key.SecretHex(),
	}
	return a, a.Save(dir)
}

// notSignedIn refuses a second sign-in.
func (c *call) notSignedIn(dir string) error {
	a, err := account.LoadAuth(dir)
	if err == nil {
		return &failure{
			Code: "already_signed_in", Message: fmt.Sprintf("this machine is signed in already, as %s at %s", cleanLine(a.User.DisplayName), a.BrokerURL),
			Hint: "sign out first: claudemesh logout", Exit: exitConflict,
		}
	}
	if errors.Is(err, account.ErrSignedOut) {
		return nil
	}
	return err
}

// newcomer is a machine that is about to be signed in to an account.
type newcomer struct {
	dir    string // of the configuration
	config *mesh.Config
	at     string // the broker
	client *account.Client
	key    mesh.Identity // the device's, made for this sign-in
}

// newcomer is what register and login begin with; a session, and a machine that is signed in already, are refused.
func (c *call) newcomer() (n newcomer, err error) {
	if err = c.userOnly(); err != nil {
		return n, err
	}
	if n.dir, err = c.configDir(); err != nil {
		return n, err
	}
	if err = c.notSignedIn(n.dir); err != nil {
		return n, err
	}
	if n.config, err = mesh.LoadConfig(n.dir); err != nil {
		return n, err
	}
	if n.at, err = c.brokerURL(n.config); err != nil {
		return n, err
	}
	if n.client, err = c.accountClient(n.dir, n.at, ""); err != nil {
		return n, err
	}
	n.key, err = mesh.NewIdentity(rand.Reader)
	return n, err
}

// sealable are the memberships that another machine can use: those on a broker that only this machine reaches stay here, unless the account's is one of them.
func sealable(config *mesh.Config, accountBroker string) (out []mesh.Joined) {
	for _, j := range config.Meshes {
		if sameBroker(j.BrokerURL, accountBroker) || !loopbackURL(j.BrokerURL) {
			out = append(out, j)
		}
	}
	return out
}

// here are the memberships at one broker.
func here(config *mesh.Config, brokerURL string) (out []mesh.Joined) {
	for _, j := range config.Meshes {
		if sameBroker(j.BrokerURL, brokerURL) {
			out = append(out, j)
		}
	}
	return out
}

// adoptMeshes puts memberships into config.json and has a daemon that runs attach them.
func (c *call) adoptMeshes(ctx context.Context, dir string, meshes []mesh.Joined) (added []string, err error) {
	if len(meshes) == 0 {
		return nil, nil
	}
	if added, err = account.Merge(dir, meshes); err != nil || len(added) == 0 {
		return added, err
	}
	return added, c.reloadDaemon(ctx)
}

// reloadDaemon tells a daemon that runs of memberships that were added. One that does not run reads them when it starts.
func (c *call) reloadDaemon(ctx context.Context) error {
	n, err := c.running(ctx)
	if errors.Is(err, bus.ErrNoDaemon) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.Close()
	return n.daemon(ctx, bus.OpMeshReload, struct{}{}, nil)
}

// explainAccount says what a failure of the account's broker means.
func explainAccount(err error) *failure {
	var no *account.Refused
	switch {
	case errors.Is(err, account.ErrSignedOut):
		return &failure{Code: "not_signed_in", Message: err.Error(), Hint: "sign in: claudemesh login, or make an account: claudemesh register\na mesh of your own needs no account", Exit: exitAuth}
	case errors.Is(err, account.ErrAuthCorrupt):
		return &failure{Code: "auth_corrupt", Message: err.Error(), Hint: "it is kept as it is; move it away and sign in again: claudemesh login", Exit: exitIO}
	case errors.Is(err, account.ErrDenied):
		return &failure{Code: "access_denied", Message: err.Error(), Exit: exitAuth}
	case errors.Is(err, account.ErrTooLate):
		return &failure{Code: "expired_token", Message: err.Error(), Hint: "nothing was changed; begin again: claudemesh login", Exit: exitAuth}
	case errors.Is(err, account.ErrUnreachable):
		return &failure{Code: "broker_unreachable", Message: err.Error(), Hint: "nothing was changed; a certificate of an authority of your own goes into ~/.claudemesh/ca.pem", Exit: exitNetwork}
	case errors.Is(err, account.ErrNoAccounts):
		return &failure{Code: "no_accounts", Message: err.Error(), Hint: "is the URL that of a claudemesh broker?", Exit: exitNetwork}
	case !errors.As(err, &no):
		return nil
	}
	f := &failure{Code: no.Code, Message: cleanLine(no.Error()), Exit: exitFailed}
	switch {
	case no.SignedOut():
		f.Exit, f.Hint = exitAuth, "the token was revoked or has ended; sign in again: claudemesh logout, then claudemesh login"
		if strings.HasPrefix(no.Code, "unauthorized") {
			f.Hint = "your key is not that of a member there"
		}
	case no.Status == 403:
		f.Exit = exitPermission
	case no.Status == 404 || no.Status == 410:
		f.Exit, f.Hint = exitNotFound, "a code is good for ten minutes; look again at what claudemesh login shows"
	case no.Status == 409 || no.Status == 429:
		f.Exit = exitConflict
	case no.Status == 400:
		f.Exit = exitUsage
	case no.Status >= 500:
		f.Exit = exitNetwork
	}
	return f
}

func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"
}
