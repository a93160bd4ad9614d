package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Timeouts of a client that names none.
const (
	DefaultConnectTimeout = 2 * time.Second
	DefaultCallTimeout    = 30 * time.Second
)

// ClientConfig says whom to connect as.
type ClientConfig struct {
	Dir   string // the daemon directory
	Token string // as kept in local-token or in a session's token file
	Actor string // User or the session id; it must be the one of the token, or every request is denied
	Name  string // shown in the server's logs
	// Reconnect keeps the client connected over restarts of the daemon, for programs that stay; a one-shot program leaves it false.
	Reconnect bool
	// Timeout bounds connecting and subscribing, and requests whose context has no deadline. 0 means DefaultConnectTimeout and DefaultCallTimeout.
	Timeout time.Duration
	Log     *slog.Logger // nil discards
	// OnReconnect is called after the connection has come back and every subscription with it. What was published meanwhile is missed: ask for it.
	OnReconnect func()
	// OnDisconnect is called when the connection breaks.
	OnDisconnect func(error)
	// OnClosed is called when the client has ended for good: Close, a refused token, or a broken connection without Reconnect.
	OnClosed func()

	inProcess nats.InProcessConnProvider // instead of the daemon of Dir, see [Server.Client]
}

// Client is a program's connection to its daemon. It is safe for concurrent use.
type Client struct {
	nc      *nats.Conn
	actor   string
	timeout time.Duration
	log     *slog.Logger
	denials *denials
}

// Connect reaches the daemon of cfg.Dir: by its Unix socket, on Windows by loopback TCP. It returns ErrNoDaemon when none runs, ErrUnauthorized when it
// refuses the token, and ctx's error when it does not answer.
func Connect(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	connect := cfg.Timeout
	if connect == 0 {
		connect = DefaultConnectTimeout
	}
	if deadline, ok := ctx.Deadline(); ok {
		connect = min(connect, time.Until(deadline))
	}
	if err := ctx.Err(); err != nil || connect <= 0 {
		return nil, fmt.Errorf("connect to daemon: %w", errors.Join(err, context.DeadlineExceeded))
	}
	c := &Client{actor: cfg.Actor, timeout: cfg.Timeout, log: cfg.Log, denials: newDenials(InboxPrefix(cfg.Actor))}
	dial := &dialer{ctx: ctx, dir: cfg.Dir, timeout: connect}
	opts := []nats.Option{
		nats.Token(cfg.Token), nats.Name(cfg.Name), nats.CustomInboxPrefix(InboxPrefix(cfg.Actor)),
		nats.Timeout(connect), nats.IgnoreDiscoveredServers(),
		nats.ErrorHandler(c.asyncError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.denials.interrupt()
			if cfg.OnDisconnect != nil {
				cfg.OnDisconnect(err)
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			c.denials.interrupt()
			if cfg.OnClosed != nil {
				cfg.OnClosed()
			}
		}),
	}
	if cfg.inProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.inProcess))
	} else {
		// The address is not used: the dialer knows the way. It is numeric so that nobody looks a name up.
		opts = append(opts, nats.SetCustomDialer(dial))
	}
	if cfg.Reconnect {
		opts = append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(20*time.Millisecond, 0),
			nats.ReconnectHandler(func(*nats.Conn) {
				if cfg.OnReconnect != nil {
					cfg.OnReconnect()
				}
			}))
	} else {
		opts = append(opts, nats.NoReconnect())
	}
	nc, err := nats.Connect("nats://127.0.0.1:4222", opts...)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	dial.connected()
	c.nc = nc
	return c, nil
}

func connectError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return ErrUnauthorized
	case errors.Is(err, ErrNoDaemon):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("connect to daemon: %w", ctx.Err())
	}
	return fmt.Errorf("connect to daemon: %w", err)
}

// Do sends in as JSON (nothing when nil) and reads the answer into out (ignored when nil). It returns
//   - *APIError when the handler refuses,
//   - ErrDenied at once when the credential does not allow the subject; for a session, a *DeniedError that says what it lacks,
//   - ErrNoDaemon when nobody answers there, or the connection was closed before: the request was not carried out,
//   - ErrInterrupted when the connection breaks meanwhile: the request may have been carried out,
//   - ctx's error when it ends first.
func (c *Client) Do(ctx context.Context, subject string, in, out any) error {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		limit := c.timeout
		if limit == 0 {
			limit = DefaultCallTimeout
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	watched, done := c.denials.watch(ctx, subject)
	defer done()
	closed := c.nc.IsClosed()
	request := &nats.Msg{Subject: subject, Data: data}
	if parent := traceOf(ctx); parent != "" {
		request.Header = nats.Header{traceHeader: {parent}}
	}
	msg, err := c.nc.RequestMsgWithContext(watched, request)
	if err != nil && errors.Is(context.Cause(watched), ErrDenied) {
		return c.denied(ctx, subject)
	}
	if err != nil {
		return c.callError(watched, subject, closed, err)
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		n, convErr := strconv.Atoi(code)
		if convErr != nil {
			n = 500
		}
		return parseAPIError(n, msg.Header.Get(micro.ErrorHeader), msg.Data)
	}
	if out == nil || len(msg.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(msg.Data, out); err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// callError names what went wrong. A connection that was open when the request began may have carried it before it broke: only one that was closed already
// is proof that nothing was sent.
func (c *Client) callError(ctx context.Context, subject string, closed bool, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrInterrupted):
		return fmt.Errorf("%w: %s", cause, subject)
	case cause != nil:
		return fmt.Errorf("wait for reply on %s: %w", subject, cause)
	case errors.Is(err, nats.ErrMaxPayload):
		return &APIError{
			Code: 413, Reason: "payload_too_large", Detail: fmt.Sprintf("the request is over the limit of %d bytes", MaxPayload), Data: map[string]any{"limit": MaxPayload},
		}
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: nobody answers on %s", ErrNoDaemon, subject)
	case errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionClosed) && !closed:
		return fmt.Errorf("%w: %s: %w", ErrInterrupted, subject, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	return fmt.Errorf("request %s: %w", subject, err)
}

// Subscribe has fn called for each message on subject, one at a time. It returns once the server has accepted the subscription, or ErrDenied.
func (c *Client) Subscribe(subject string, fn func(*nats.Msg)) (*nats.Subscription, error) {
	denied, done := c.denials.watchSubscription(subject)
	defer done()
	sub, err := c.nc.Subscribe(subject, fn)
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	limit := c.timeout
	if limit == 0 {
		limit = DefaultConnectTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err = c.nc.FlushWithContext(ctx)
	if err == nil {
		// The server's objection, if any, has arrived before the answer to the flush; the error handler may still be on its way to tell us.
		err = c.denials.settled(ctx, c.nc.LastError)
	}
	if err == nil && denied() {
		err = ErrDenied
	}
	if err != nil {
		_ = sub.Unsubscribe()
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	return sub, nil
}

// Conn is the connection itself, for what Do and Subscribe do not cover.
func (c *Client) Conn() *nats.Conn { return c.nc }

// Close ends the connection. Requests under way return ErrInterrupted.
func (c *Client) Close() { c.nc.Close() }

func (c *Client) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if c.denials.handle(err) {
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.log.Warn("bus connection", "subject", subject, "err", err)
}
