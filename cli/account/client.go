package account

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/bridge"
	"claudemesh/mesh"
	"claudemesh/wire"
)

const (
	askTimeout = 15 * time.Second
	maxAnswer  = 16 << 20 // the packages of all machines
)

// Errors of a conversation with a broker.
var (
	// ErrUnreachable is wrapped when there was no answer.
	ErrUnreachable = errors.New("the broker cannot be reached")
	// ErrNoAccounts is wrapped when something answered that knows no accounts.
	ErrNoAccounts = errors.New("this broker knows no accounts")
	// ErrDenied and ErrTooLate end the wait for an approval.
	ErrDenied  = errors.New("the sign-in was denied")
	ErrTooLate = errors.New("nobody approved the sign-in in time")
)

// Refused is an answer that says no. Code is the broker's word.
type Refused struct {
	Status       int
	Code, Detail string
}

func (e *Refused) Error() string {
	if e.Detail != "" {
		return e.Detail
	}
	return fmt.Sprintf("the broker refused it: %s (HTTP %d)", e.Code, e.Status)
}

// SignedOut reports whether the broker does not know the session token (any more).
func (e *Refused) SignedOut() bool { return e.Status == http.StatusUnauthorized }

// Client asks one broker. Token may be empty for what needs none.
type Client struct {
	BrokerURL string // ws or wss
	Token     string
	TLS       *tls.Config // nil: the system's authorities
	Clock     clockwork.Clock
}

// request is one question. auth replaces the session token.
type request struct {
	method, path, auth string
	body               any
	form               url.Values
}

func (c *Client) base() (string, error) {
	base, err := bridge.HTTPBase(c.BrokerURL)
	return strings.TrimSuffix(base, "/"), err
}

// ask sends a request and reads the answer into out, of any status that says ok; *Refused otherwise.
func (c *Client) ask(ctx context.Context, r request, out any) error {
	status, answer, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	var no struct {
		Error  string `json:"error"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(answer, &no) != nil {
		return fmt.Errorf("%w: %s answered HTTP %d without JSON", ErrNoAccounts, c.BrokerURL, status)
	}
	if status != http.StatusOK {
		return &Refused{Status: status, Code: printable(no.Error), Detail: printable(no.Detail)}
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%w: its answer is not understood", ErrNoAccounts)
	}
	return nil
}

func (c *Client) send(ctx context.Context, r request) (status int, answer []byte, err error) {
	base, err := c.base()
	if err != nil {
		return 0, nil, err
	}
	var body []byte
	kind := "application/json"
	switch {
	case r.form != nil:
		body, kind = []byte(r.form.Encode()), "application/x-www-form-urlencoded"
	case r.body != nil:
		if body, err = json.Marshal(r.body); err != nil {
			return 0, nil, fmt.Errorf("encode request: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", kind)
	switch {
	case r.auth != "":
		req.Header.Set("Authorization", r.auth)
	case c.Token != "":
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	// No redirect is followed: the token is for this broker.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: c.TLS},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return 0, nil, context.Canceled
		}
		return 0, nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, c.BrokerURL, withoutLine(err))
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s broke off: %w", ErrUnreachable, c.BrokerURL, err)
	}
	return res.StatusCode, answer, nil
}

// withoutLine drops the request line that net/http puts in front of its errors: a device code stands in one.
func withoutLine(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// printable is a broker's word on a terminal: one line of visible characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 300)]
}

// Register makes an account, or signs in to the one that the member's key belongs to. The member is one of a mesh of this broker.
func (c *Client) Register(ctx context.Context, as mesh.Joined, req wire.RegisterRequest) (out wire.SignedIn, err error) {
	who, err := as.Identity()
	if err != nil {
		return out, err
	}
	base, err := c.base()
	if err != nil {
		return out, err
	}
	u, err := url.Parse(base + "/cli/register")
	if err != nil {
		return out, fmt.Errorf("broker url: %w", err)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return out, fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(body)
	auth := mesh.SignHTTP(who, http.MethodPost, u.RequestURI(), as.MeshID, hex.EncodeToString(sum[:]), c.Clock.Now())
	err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/register", auth: auth, body: json.RawMessage(body)}, &out)
	return out, err
}

// RegisterByAdmin makes an account with the broker's admin token.
func (c *Client) RegisterByAdmin(ctx context.Context, adminToken string, req wire.RegisterRequest) (out wire.SignedIn, err error) {
	err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/register", auth: "Bearer " + adminToken, body: req}, &out)
	return out, err
}

// Begin asks for a code.
func (c *Client) Begin(ctx context.Context, d wire.Device) (out wire.DeviceCode, err error) {
	if err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/device-code", body: d}, &out); err != nil {
		return out, err
	}
	if out.DeviceCode == "" || len(out.DeviceCode) > 128 || len(out.UserCode) > 32 {
		return out, fmt.Errorf("%w: its answer holds no code", ErrNoAccounts)
	}
	return out, nil
}

// Wait asks until the code was decided about, as often as the broker wants to be asked (RFC 8628, 3.4 and 3.5). Errors: ErrDenied, ErrTooLate.
func (c *Client) Wait(ctx context.Context, code wire.DeviceCode) (wire.DeviceToken, error) {
	interval := time.Duration(min(max(code.Interval, 1), 60)) * time.Second
	end := c.Clock.Now().Add(time.Duration(min(max(code.ExpiresIn, 60), 3600)) * time.Second)
	form := url.Values{"grant_type": {wire.DeviceGrantType}, "device_code": {code.DeviceCode}, "client_id": {"claudemesh"}}
	for c.Clock.Now().Before(end) {
		select {
		case <-ctx.Done():
			return wire.DeviceToken{}, ctx.Err()
		case <-c.Clock.After(interval):
		}
		status, answer, err := c.send(ctx, request{method: http.MethodPost, path: "/cli/device-token", form: form})
		if errors.Is(err, ErrUnreachable) {
			continue // the network may come back before the code ends
		}
		if err != nil {
			return wire.DeviceToken{}, err
		}
		var got wire.DeviceToken
		if json.Unmarshal(answer, &got) != nil {
			return got, fmt.Errorf("%w: %s answered HTTP %d without JSON", ErrNoAccounts, c.BrokerURL, status)
		}
		switch got.Error {
		case "":
			if got.AccessToken == "" || got.User == nil {
				return got, fmt.Errorf("%w: its answer holds no token", ErrNoAccounts)
			}
			return got, nil
		case "authorization_pending":
		case "slow_down":
			interval += 5 * time.Second
		case "access_denied":
			return got, ErrDenied
		case "expired_token":
			return got, ErrTooLate
		default:
			return got, &Refused{Status: status, Code: printable(got.Error), Detail: printable(got.Description)}
		}
	}
	return wire.DeviceToken{}, ErrTooLate
}

// Asked tells what a machine said that wants to be signed in.
func (c *Client) Asked(ctx context.Context, userCode string) (out wire.DeviceRequest, err error) {
	err = c.ask(ctx, request{method: http.MethodGet, path: "/cli/device-approval/" + url.PathEscape(userCode)}, &out)
	return out, err
}

// Decide lets it in, or not.
func (c *Client) Decide(ctx context.Context, userCode string, d wire.DeviceDecision) error {
	return c.ask(ctx, request{method: http.MethodPost, path: "/cli/device-code/" + url.PathEscape(userCode) + "/approve", body: d}, &struct{}{})
}

// Pass makes a secret for the broker's page.
func (c *Client) Pass(ctx context.Context) (out wire.AccountPass, err error) {
	err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/account/pass", body: struct{}{}}, &out)
	return out, err
}

// Info tells account, machines and linked keys.
func (c *Client) Info(ctx context.Context) (out wire.AccountInfo, err error) {
	err = c.ask(ctx, request{method: http.MethodGet, path: "/cli/account"}, &out)
	return out, err
}

// Meshes lists the meshes of the account on this broker.
func (c *Client) Meshes(ctx context.Context) (out wire.MeshRows, err error) {
	err = c.ask(ctx, request{method: http.MethodGet, path: "/cli/meshes"}, &out)
	return out, err
}

// Revoke ends the token of another machine; with no id, this client's own.
func (c *Client) Revoke(ctx context.Context, id string) (found bool, err error) {
	body := wire.SessionRevoke{ID: id}
	if id == "" {
		body.Token = c.Token
	}
	var out wire.SessionRevoked
	err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/session/revoke", body: body}, &out)
	return out.Found, err
}

// Link proves to the broker that the keys of these memberships belong to the account.
func (c *Client) Link(ctx context.Context, accountID string, meshes []mesh.Joined) (out wire.AccountKeysLinked, err error) {
	var body wire.AccountKeys
	now := c.Clock.Now().UnixMilli()
	for _, j := range meshes {
		who, err := j.Identity()
		if err != nil {
			return out, err
		}
		body.Keys = append(body.Keys, wire.AccountKey{
			MeshID: j.MeshID, Pubkey: j.Pubkey, Timestamp: now, Signature: who.Sign(mesh.AccountKeyString(j.MeshID, j.Pubkey, accountID, now)),
		})
	}
	err = c.ask(ctx, request{method: http.MethodPost, path: "/cli/account/keys", body: body}, &out)
	return out, err
}

// Deposit leaves a package for another machine; Collect gets those for this one.
func (c *Client) Deposit(ctx context.Context, box wire.SealedBox) error {
	return c.ask(ctx, request{method: http.MethodPost, path: "/cli/account/packages", body: box}, &struct{}{})
}

// Collect is the other half of Deposit. The packages stay, for as long as the machine is signed in.
func (c *Client) Collect(ctx context.Context) ([]wire.SealedBox, error) {
	var out wire.SealedBoxes
	err := c.ask(ctx, request{method: http.MethodGet, path: "/cli/account/packages"}, &out)
	return out.Packages, err
}
