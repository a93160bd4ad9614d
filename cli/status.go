package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

func statusVerb() verb {
	return verb{
		name: "status", short: "is everything well; say what you are doing",
		long: `Without a subcommand: checks the config file, the daemon and the link to the broker of every mesh (or the one named), and how long each
broker takes to answer. The exit code is 0 when every broker answers, else 4.

status set says what this session is doing (outside of a session: the member itself).`,
		examples: []string{"claudemesh status", "claudemesh status set dnd"},
		fails:    []string{"4  a broker does not answer"},
		subs:     []verb{statusSetVerb("set")},
		run: func(ctx context.Context, c *call) error {
			if c.cmd.Args().Present() {
				return c.unknownCommand(c.args()[0])
			}
			return c.health(ctx)
		},
	}
}

func statusSetVerb(name string) verb {
	return verb{
		name: name, args: "idle|working|dnd", short: "say whether you may be disturbed",
		long: `Peers see it in the list of peers. working and dnd hold back every message that is not of the priority now, until the status is idle
again; nothing is lost. working ends by itself after a minute unless it is said again, dnd only by hand.

--json prints {"status", "mesh"}.`,
		examples: []string{"claudemesh status set working", "claudemesh status set dnd --mesh team"},
		fails:    []string{"3  no such status", "4  the broker cannot be reached", "7  this session may not change its profile"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh status set idle|working|dnd"); err != nil {
				return err
			}
			status := c.args()[0]
			if !slices.Contains([]string{wire.StatusIdle, wire.StatusWorking, wire.StatusDND}, status) {
				return usagef("%s is no status: idle, working or dnd", quoted(status))
			}
			slug, err := c.askBroker(ctx, bus.CallSetStatus, wire.SetStatus{Status: status}, nil)
			if err != nil {
				return err
			}
			return c.ui.result(map[string]any{"status": status, "mesh": slug}, func() error { return c.ui.print("status on %s: %s", slug, status) })
		},
	}
}

type healthJSON struct {
	OK      bool         `json:"ok"`
	Version string       `json:"version"`
	Config  configHealth `json:"config"`
	Daemon  *struct {
		PID     int      `json:"pid"`
		Notices []string `json:"notices,omitempty"`
	} `json:"daemon,omitempty"`
	Meshes []meshHealth `json:"meshes"`
}

type configHealth struct {
	Path  string `json:"path"`
	Mode  string `json:"mode,omitempty"` // octal; absent when there is no file
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

type meshHealth struct {
	Mesh      string `json:"mesh"`
	OK        bool   `json:"ok"`
	Link      string `json:"link"`
	BrokerURL string `json:"broker_url"`
	Pubkey    string `json:"pubkey"`
	MS        int64  `json:"ms"` // until the broker had answered; -1 when it did not
	Error     string `json:"error,omitempty"`
}

// health looks at everything between this process and the brokers.
func (c *call) health(ctx context.Context) error {
	h := healthJSON{OK: true, Version: c.release, Meshes: []meshHealth{}}
	var err error
	if h.Config, err = c.configHealth(); err != nil {
		return err
	}
	slugs, err := c.meshes(ctx)
	if err != nil && !errors.Is(err, errNoMesh) {
		return err
	}
	if len(slugs) > 0 {
		n, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer n.Close()
		var s bus.Status
		if err := n.daemon(ctx, bus.OpStatus, nil, &s); err != nil {
			return err
		}
		if s.Running { // not on the cold path
			h.Daemon = &struct {
				PID     int      `json:"pid"`
				Notices []string `json:"notices,omitempty"`
			}{s.PID, s.Notices}
		}
		for _, slug := range slugs {
			m := c.meshHealth(ctx, n, slug)
			h.OK = h.OK && m.OK
			h.Meshes = append(h.Meshes, m)
		}
	}
	if err := c.ui.result(h, func() error { return c.printHealth(h) }); err != nil {
		return err
	}
	if !h.OK {
		return &exitError{exitNetwork}
	}
	return nil
}

// configHealth looks at the config file. Its mode matters: it holds the member keys.
func (c *call) configHealth() (configHealth, error) {
	dir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return configHealth{}, err
	}
	h := configHealth{Path: mesh.ConfigPath(dir), OK: true}
	info, err := os.Stat(h.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return h, fmt.Errorf("look at config: %w", err)
	default:
		h.Mode = fmt.Sprintf("%04o", info.Mode().Perm())
		if private(info) {
			break
		}
		h.OK, h.Error = false, "others can read it, and it holds keys: chmod 600 "+h.Path
	}
	return h, nil
}

func (c *call) meshHealth(ctx context.Context, n *conn, slug string) meshHealth {
	h := meshHealth{Mesh: slug, MS: -1}
	begin := c.clock.Now()
	_, err := n.peers(ctx, c.clock, slug, true)
	took := c.clock.Since(begin)
	var list bus.MeshList
	if n.daemon(ctx, bus.OpMeshList, nil, &list) == nil {
		for _, m := range list.Meshes {
			if m.Mesh == slug {
				h.Link, h.BrokerURL, h.Pubkey, h.Error = m.Link, m.BrokerURL, m.Pubkey, m.Error
			}
		}
	}
	if err != nil {
		h.Error = explain(err).Message
		return h
	}
	h.OK, h.MS, h.Error = true, took.Milliseconds(), ""
	return h
}

func (c *call) printHealth(h healthJSON) error {
	config := h.Config.Path
	switch {
	case h.Config.Mode == "":
		config += " (not there yet)"
	case h.Config.Error != "":
		c.ui.warn("%s", h.Config.Error)
	}
	if err := c.ui.print("claudemesh v%s\n  config  %s", h.Version, config); err != nil {
		return err
	}
	if h.Daemon != nil {
		if err := c.ui.print("  daemon  pid %d", h.Daemon.PID); err != nil {
			return err
		}
		for _, notice := range h.Daemon.Notices {
			c.ui.warn("%s", cleanLine(notice))
		}
	}
	if len(h.Meshes) == 0 {
		return c.ui.print("no mesh is joined")
	}
	for _, m := range h.Meshes {
		state := c.ui.paint(green, "ok") + fmt.Sprintf("  %s", time.Duration(m.MS)*time.Millisecond)
		if !m.OK {
			state = c.ui.paint(red, "not reachable") + "  " + cleanLine(m.Error)
		}
		if err := c.ui.print("  %s  %s  %s  %s", c.ui.paint(bold, m.Mesh), cleanLine(m.BrokerURL), short(m.Pubkey), state); err != nil {
			return err
		}
	}
	return nil
}
