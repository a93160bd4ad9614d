package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/jonboulle/clockwork"

	"claudemesh/daemon/session"
	"claudemesh/daemon/spans"
)

// ErrNoDir is returned by Start when Options name no directory.
var ErrNoDir = errors.New("no daemon directory")

// Options is what a daemon is made of. Dir and ConfigDir are required; every other zero value means the real thing.
type Options struct {
	Dir       string // the daemon directory (0700): lock, socket, stores, log
	ConfigDir string // where config.json is
	NoTCP     bool   // no loopback TCP door: the stock nats CLI cannot connect
	NoHTTP    bool   // no HTTP for scripts, neither on a socket nor on loopback
	// PublicHealth answers GET /v1/health on loopback without a token; Metrics serves GET /metrics to the user.
	PublicHealth, Metrics bool
	Version               string
	Args                  []string // flags of the command line, told in bus.json

	// Spans tells a collector how messages travel; nil tells nobody. Whoever makes it closes it, after the daemon.
	Spans *spans.Recorder

	Log       *slog.Logger
	LogPath   string // told to users, empty when the log goes elsewhere
	Clock     clockwork.Clock
	Rand      io.Reader
	Processes session.Processes
	// Dial connects to brokers that are not this daemon's own.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// CAFile is a PEM file of certificate authorities that brokers at wss:// may be certified by, beside those of the system. Empty: ca.pem in ConfigDir, if
	// there is one. It is read for every connection.
	CAFile string
	// PairRate is how many messages a minute one session may send to one target, PairReplies how many answers within ten minutes without a turn of its user;
	// 0 means 60 and 40, below 0 no limit.
	PairRate, PairReplies int
	// HostID tells this host apart from others, for the host pin; its error says why it cannot. nil is HostID with the environment of the process.
	HostID func() (string, error)
	// DisplayName names the member in meshes created or joined here; default: the user's name.
	DisplayName string
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clockwork.NewRealClock()
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Processes == nil {
		o.Processes = session.HostProcesses{}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.HostID == nil {
		o.HostID = func() (string, error) { return HostID(os.Getenv) }
	}
	if o.PairRate == 0 {
		o.PairRate = 60
	}
	if o.PairReplies == 0 {
		o.PairReplies = 40
	}
	if o.DisplayName == "" {
		o.DisplayName = userName()
	}
	return o
}

// userName is the name a member gets when nobody chose one: the login name, else the host's, never empty.
func userName() string {
	for _, env := range []string{"USER", "USERNAME", "LOGNAME"} {
		if v := os.Getenv(env); v != "" {
			return v
		}
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "member"
}
