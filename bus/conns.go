package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// BusConn is a new connection of the daemon itself in BUS, with all rights, in process. Shutdown closes it; the caller may close it earlier. It comes
// back by itself should the server ever cut it.
func (s *Server) BusConn() (*nats.Conn, error) { return s.ownConn(roleDaemon, s.bus) }

// ServiceConn is a new connection for [NewService]: it hears requests and can publish to inboxes only, so that no reply subject whatever makes the
// daemon speak elsewhere.
func (s *Server) ServiceConn() (*nats.Conn, error) { return s.ownConn(roleService, s.bus) }

// BrokerConn is like BusConn in the account BROKER.
func (s *Server) BrokerConn() (*nats.Conn, error) { return s.ownConn(roleBroker, s.broker) }

// Client is a connection in process of whoever holds a token: the server gives it the rights of that token and no others, as if it had come by a door, and cuts
// it when the token is revoked. The caller closes it. Of cfg, Dir and Reconnect are not used. Errors are those of [Connect].
func (s *Server) Client(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if s.bus == nil {
		return nil, errors.New("this server has no bus")
	}
	cfg.inProcess, cfg.Reconnect = s.ns, false
	return Connect(ctx, cfg)
}

func (s *Server) ownConn(role Role, acc *natsserver.Account) (*nats.Conn, error) {
	if acc == nil {
		return nil, errors.New("this server has no bus")
	}
	token, err := NewToken(s.cfg.Rand)
	if err != nil {
		return nil, err
	}
	var perms *natsserver.Permissions
	if role == roleService {
		perms = servicePermissions()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nats.ErrConnectionClosed
	}
	s.grants.addOwn(HashToken(token), role, acc, perms)
	nc, err := nats.Connect("", nats.InProcessServer(s.ns), nats.Token(token), nats.Name(string(role)),
		nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0), nats.CustomInboxPrefix("_INBOX."+string(role)),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				s.log.Warnf("own connection %s was cut, and comes back: %v", role, err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { s.log.Warnf("own connection %s: %v", role, err) }))
	if err != nil {
		s.grants.Revoke(HashToken(token))
		return nil, fmt.Errorf("connect in process: %w", err)
	}
	s.conns = append(s.conns, nc)
	return nc, nil
}
