package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

const (
	topEvery = time.Second     // how often the tables are asked for
	topLimit = 2 * time.Second // what one look may take
	topQueue = 1024            // messages that wait to be drawn; of more, only the number is shown
)

func topVerb() verb {
	return verb{
		name: "top", args: "", short: "watch links, sessions, peers and messages on one screen",
		long: `Shows every joined mesh with its link and outbox, the sessions of this machine and how each is woken, the peers, and what passes between them as it
passes: texts in clear, this is your own machine. q ends it, p holds the picture, m hides what messages say. Where stdout is no terminal, or with
--json, it prints what is there now and ends.`,
		examples: []string{"claudemesh top", "claudemesh top --jq '.sessions[].name'"},
		fails:    []string{"7  a session may not watch its machine", "8  the daemon does not start or answer, or went away"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh top"); err != nil {
				return err
			}
			n, err := c.connectDaemon(ctx)
			if err != nil {
				return err
			}
			defer n.Close()
			if n.session {
				return &failure{Code: "forbidden", Message: "top shows the whole machine, and this is one session of it", Hint: "run it in a shell of your own; claudemesh peer list works here", Exit: exitPermission}
			}
			if c.ui.json || !terminal(c.stdout) || !terminal(c.stdin) {
				now, err := n.look(ctx, c.clock)
				if err != nil {
					return err
				}
				return c.ui.result(now, func() error {
					return c.ui.print("%s", strings.Join((&topScreen{now: now, plain: true}).tables(), "\n"))
				})
			}
			return c.top(ctx, n)
		},
	}
}

// topJSON is what is there at one moment.
type topJSON struct {
	Daemon   bus.Status        `json:"daemon"`
	Sessions []bus.SessionInfo `json:"sessions"`
	Peers    []bus.Peer        `json:"peers"` // of every mesh whose link is open, without the daemons' own connections
	at       time.Time
}

// look asks for everything once. A broker that does not answer leaves its peers out: its link tells why.
func (n *conn) look(ctx context.Context, clock clockwork.Clock) (topJSON, error) {
	ctx, cancel := context.WithTimeout(ctx, topLimit)
	defer cancel()
	now := topJSON{Sessions: []bus.SessionInfo{}, Peers: []bus.Peer{}, at: clock.Now()}
	if err := n.daemon(ctx, bus.OpStatus, nil, &now.Daemon); err != nil {
		return now, err
	}
	var sessions bus.SessionList
	if err := n.daemon(ctx, bus.OpSessionList, nil, &sessions); err != nil {
		return now, err
	}
	now.Sessions = append(now.Sessions, sessions.Sessions...)
	for _, m := range now.Daemon.Meshes {
		if m.Link != "open" {
			continue
		}
		rows, err := n.peers(ctx, clock, m.Mesh, false)
		if err != nil {
			continue
		}
		for _, r := range rows {
			r.Mesh = m.Mesh
			now.Peers = append(now.Peers, r.Peer)
		}
	}
	return now, nil
}

// Messages of the program: what a look found, what passed on the bus, and that nothing will any more.
type (
	topLooked struct {
		now topJSON
		err error
	}
	topPassed struct {
		subject string
		data    []byte
		at      time.Time
	}
	topLost struct{}
)

// topModel is the program behind the screen: it asks, listens, and reacts to keys. What is shown is topScreen's.
type topModel struct {
	ctx    context.Context
	c      *call
	n      *conn
	passed chan topPassed
	lost   chan nats.Status
	screen topScreen
	held   bool
	err    error
}

func (c *call) top(ctx context.Context, n *conn) error {
	m := &topModel{ctx: ctx, c: c, n: n, passed: make(chan topPassed, topQueue), lost: n.Conn().StatusChanged(nats.CLOSED, nats.DISCONNECTED)}
	_, err := n.Subscribe(everything, func(msg *nats.Msg) {
		select {
		case m.passed <- topPassed{msg.Subject, msg.Data, c.clock.Now()}:
		default:
			m.screen.missed.Add(1)
		}
	})
	if err != nil {
		return err
	}
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(c.stdin), tea.WithOutput(c.stdout), tea.WithoutSignalHandler(), tea.WithEnvironment(c.environ())).Run()
	switch {
	case m.err != nil:
		return m.err
	case ctx.Err() != nil, errors.Is(err, tea.ErrInterrupted):
		return nil // how it is ended
	case err != nil:
		return fmt.Errorf("draw on the terminal: %w", err)
	}
	return nil
}

func (m *topModel) Init() tea.Cmd { return tea.Batch(m.look, m.listen) }

func (m *topModel) look() tea.Msg {
	now, err := m.n.look(m.ctx, m.c.clock)
	return topLooked{now, err}
}

func (m *topModel) listen() tea.Msg {
	select {
	case p := <-m.passed:
		return p
	case <-m.lost:
		return topLost{}
	case <-m.ctx.Done():
		return topLost{}
	}
}

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.screen.width, m.screen.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "p", "space":
			m.held = !m.held
		case "m":
			m.screen.mute = !m.screen.mute
		}
	case topLooked:
		if msg.err != nil {
			m.screen.trouble = explain(msg.err).Message
		} else if m.screen.trouble = ""; !m.held {
			m.screen.now = msg.now
		}
		return m, tea.Tick(topEvery, func(time.Time) tea.Msg { return m.look() })
	case topPassed:
		if !m.held {
			m.screen.pass(msg.subject, msg.data, msg.at)
		}
		return m, m.listen
	case topLost:
		if m.ctx.Err() == nil {
			m.err = fmt.Errorf("%w: there is nothing to watch any more", bus.ErrInterrupted)
		}
		return m, tea.Quit
	}
	return m, nil
}

func (m *topModel) View() tea.View {
	v := tea.NewView(m.screen.draw(m.held))
	v.AltScreen = true
	return v
}

// flowLine is what of a message on the bus is worth a line; ok is false for what is not: requests and their answers.
func flowLine(subject string, data []byte, mute bool) (line, id string, ok bool) {
	on, err := bus.ParseSubject(subject)
	if err != nil {
		return "", "", false
	}
	switch on.Kind {
	case bus.KindSessionMsg, bus.KindMemberMsg, bus.KindGroupMsg, bus.KindTopicMsg, bus.KindAllMsg:
		var m bus.InboxItem
		if json.Unmarshal(data, &m) != nil || m.ID == "" {
			return "", "", false
		}
		text := cleanLine(m.Body)
		switch {
		case m.Reason != "" && m.Body == "":
			text = "(" + cleanLine(m.Reason) + ")"
		case mute:
			text = fmt.Sprintf("(%d bytes)", len(m.Body))
		}
		return fmt.Sprintf("%s  %s → %s  %s", m.Mesh, cleanLine(m.FromName), cleanLine(m.To), text), m.ID, true
	case bus.KindReceipt:
		var r bus.Receipt
		if json.Unmarshal(data, &r) != nil || r.State == "" {
			return "", "", false
		}
		line = fmt.Sprintf("%s  %s… is %s", r.Mesh, short(cleanLine(r.ClientMessageID)), cleanLine(r.State))
		if r.Via != "" {
			line += " by " + cleanLine(r.Via)
		}
		if r.Reason != "" {
			line += ": " + cleanLine(r.Reason)
		}
		return line, "", true
	}
	return "", "", false
}
