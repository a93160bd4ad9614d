package mcp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
)

// userTokenFile is where the daemon keeps the user's token, in its directory.
const userTokenFile = "local-token"

// attachEvery is how long a client that cannot be made a session waits before it asks again: a mesh has to be joined, or one of several to be named.
const attachEvery = 30 * time.Second

// account is in whose name the shim acts: the session that the environment names, else the one that the daemon makes of this client when it is asked to.
// It never acts as the user for anything else than to ask, and never when the environment names a session, be its token readable or not.
type account struct {
	Config

	mu       sync.Mutex
	attached *feed.Credential // of a session that the daemon made
	started  bool             // a daemon was started, or it was tried
}

// connect opens a connection to the daemon, as a session.
func (a *account) connect(ctx context.Context, name string) (*bus.Client, string, error) {
	cred, ok, err := feed.SessionCredential(a.Getenv)
	if err != nil {
		return nil, "", err
	}
	if ok {
		client, err := a.dial(ctx, cred, name)
		return client, cred.Actor, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.attached == nil {
		if err := a.attach(ctx); err != nil {
			return nil, "", err
		}
	}
	actor := a.attached.Actor
	client, err := a.dial(ctx, *a.attached, name)
	if errors.Is(err, bus.ErrUnauthorized) {
		a.attached = nil // the session has ended; the next attempt makes another
	}
	return client, actor, err
}

func (a *account) dial(ctx context.Context, cred feed.Credential, name string) (*bus.Client, error) {
	return bus.Connect(ctx, bus.ClientConfig{Dir: a.Dir, Token: cred.Token, Actor: cred.Actor, Name: name})
}

// attach asks the daemon to make this client a session.
func (a *account) attach(ctx context.Context) error {
	if err := a.wake(ctx); err != nil {
		return err
	}
	token, err := feed.ReadToken(filepath.Join(a.Dir, userTokenFile))
	if err != nil {
		return err
	}
	user, err := a.dial(ctx, feed.Credential{Actor: bus.User, Token: token}, "claudemesh mcp")
	if err != nil {
		return err
	}
	defer user.Close()
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	req := bus.SessionAttach{PID: a.PID, Mesh: a.mesh(), Cwd: cwd, Conversation: a.Getenv(envConversation)}
	var me bus.SessionInfo
	err = user.Do(ctx, bus.DaemonSubject(bus.User, bus.OpSessionAttach), req, &me)
	var refused *bus.APIError
	switch {
	case errors.As(err, &refused):
		return feed.RetryIn(attachEvery, fmt.Errorf("this client is on no mesh yet (%w); %s", err, remedy(refused)))
	case err != nil:
		return fmt.Errorf("become a session: %w", err)
	}
	cred := feed.Credential{Actor: me.ID}
	if cred.Token, err = feed.ReadToken(me.TokenFile); err != nil {
		return err
	}
	a.attached = &cred
	return nil
}

// mesh is the mesh that was asked for; empty leaves it to the daemon.
func (a *account) mesh() string {
	if a.Mesh != "" {
		return a.Mesh
	}
	return a.Getenv(feed.EnvMesh)
}

// wake starts a daemon when none runs, once in the life of the process: what is stopped later was stopped by somebody.
func (a *account) wake(ctx context.Context) error {
	if a.started || a.Start == nil || bus.Held(a.Dir) {
		return nil
	}
	a.started = true
	if err := a.Start(ctx); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	return nil
}

// remedy is what the user can do about a refusal to attach.
func remedy(refused *bus.APIError) string {
	switch refused.Reason {
	case "mesh_required":
		return "name one of your meshes: CLAUDEMESH_MESH=SLUG claude, or start it with: claudemesh launch SLUG"
	case "no_mesh", "mesh_not_found", "not_joined":
		return "join or make one with: claudemesh join INVITE, or claudemesh create NAME"
	}
	return "see: claudemesh status"
}
