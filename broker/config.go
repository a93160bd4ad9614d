package broker

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"
)

// Config is what a broker is given. NC is required; it must be a connection of an account with JetStream and stays the caller's: Close does not close it.
type Config struct {
	NC        *nats.Conn
	Clock     clockwork.Clock // default: the real one
	Rand      io.Reader       // default: crypto/rand
	Log       *slog.Logger    // default: discard
	Version   string          // shown by GET /health
	PublicURL string          // the ws or wss URL under which clients reach this broker; returned with created meshes
	Limits    Limits
	// Unsynced says that the store does not sync every write, so that nothing is gained by writing many at once.
	Unsynced bool
	// Dir is an existing directory for what can be made again, the search view. Empty: it is kept in memory and made at every start.
	Dir string
	// AllowPrivateWatches lets watches fetch addresses that are not on the public internet: whatever this machine can reach, its own services included.
	AllowPrivateWatches bool
	// TrustedProxies are the addresses whose X-Forwarded-For is believed, where requests are counted by address.
	TrustedProxies []netip.Prefix
	// OpenStatus serves GET /metrics and GET /status without the admin token: for a broker that only its own machine can reach.
	OpenStatus bool
	// AdminTokenHash is the SHA-256 of the bearer token of POST /cli/mesh/create, GET /metrics and GET /status. Zero closes them.
	AdminTokenHash [32]byte
	// AllowHook lets programs on the broker's own machine report the status of any session without a signature, as the reference's hook does. Whoever can
	// open a loopback port of the machine can then say that somebody is working. A broker behind a proxy must not set it.
	AllowHook bool
}

// Limits bounds what clients can make a broker hold. Zero fields get the defaults named here.
type Limits struct {
	ConnsPerMesh      int           // 1000 registered connections per mesh
	Conns             int           // 4096 sockets in all
	Unauthenticated   int           // 256 sockets that have not said hello yet; of more, the longest silent are closed
	HelloDeadline     time.Duration // 10 s from upgrade to hello
	Lease             time.Duration // 30 s from a push to its acknowledgement; then it is pushed again
	WriteDeadline     time.Duration // 10 s for a client to take one frame; then it is cut off
	MaxStore          int64         // 1 GiB of disk for all streams together
	Retention         time.Duration // 30 days: life of undelivered mail and of the memory of client message ids
	MailboxDepth      int           // 10,000 messages waiting in one mailbox, give or take those being accepted; a direct send to a full one is refused, a multicast skips it
	Window            int           // 512 pushes without client_ack per connection, then the pump waits
	SendsInFlight     int           // 128 sends per connection waiting for the store, then the socket is not read
	SessionsPerMember int           // 256 remembered session keys per member; the longest unseen are forgotten
	MembersPerMesh    int           // 4096
	Meshes            int           // 1000
	VaultEntries      int           // 500 entries in one member's vault
	MaxFiles          int64         // 1 GiB of disk for the bytes of files, beside MaxStore
	FilesPerMesh      int           // 10,000
	EphemeralFiles    time.Duration // 24 h: life of a file that is not to persist
	Uploads           int           // 4 at one time; one more waits a moment and is refused then
	SendRate          int           // no limit: sends per minute and member; a mesh may have its own
	SendBurst         int           // as many as SendRate: sends of one member at once
	StateKeys         int           // 1000 keys of shared state per mesh
	MemoriesPerMesh   int           // 10,000
	SkillsPerMesh     int           // 1000
	ServicesPerMesh   int           // 64

	SchedulesPerMember int // 128 messages waiting for their time
	SchedulesPerMesh   int // 1024
	WatchesPerMember   int // 32
	WatchesPerMesh     int // 256
	WebhooksPerMesh    int // 64
	HookEvents         int // 60 events a minute of one webhook, and as many at once
}

func (l Limits) withDefaults() Limits {
	l.ConnsPerMesh = cmp.Or(l.ConnsPerMesh, 1000)
	l.Conns = cmp.Or(l.Conns, 4096)
	l.Unauthenticated = cmp.Or(l.Unauthenticated, 256)
	l.HelloDeadline = cmp.Or(l.HelloDeadline, 10*time.Second)
	l.Lease = cmp.Or(l.Lease, 30*time.Second)
	l.WriteDeadline = cmp.Or(l.WriteDeadline, 10*time.Second)
	l.MaxStore = cmp.Or(l.MaxStore, 1<<30)
	l.Retention = cmp.Or(l.Retention, 30*24*time.Hour)
	l.MailboxDepth = cmp.Or(l.MailboxDepth, 10_000)
	l.Window = cmp.Or(l.Window, 512)
	l.SendsInFlight = cmp.Or(l.SendsInFlight, 128)
	l.SessionsPerMember = cmp.Or(l.SessionsPerMember, 256)
	l.MembersPerMesh = cmp.Or(l.MembersPerMesh, 4096)
	l.Meshes = cmp.Or(l.Meshes, 1000)
	l.VaultEntries = cmp.Or(l.VaultEntries, 500)
	l.MaxFiles = cmp.Or(l.MaxFiles, 1<<30)
	l.FilesPerMesh = cmp.Or(l.FilesPerMesh, 10_000)
	l.EphemeralFiles = cmp.Or(l.EphemeralFiles, 24*time.Hour)
	l.Uploads = cmp.Or(l.Uploads, 4)
	l.StateKeys = cmp.Or(l.StateKeys, 1000)
	l.MemoriesPerMesh = cmp.Or(l.MemoriesPerMesh, 10_000)
	l.SkillsPerMesh = cmp.Or(l.SkillsPerMesh, 1000)
	l.ServicesPerMesh = cmp.Or(l.ServicesPerMesh, 64)
	l.SchedulesPerMember = cmp.Or(l.SchedulesPerMember, 128)
	l.SchedulesPerMesh = cmp.Or(l.SchedulesPerMesh, 1024)
	l.WatchesPerMember = cmp.Or(l.WatchesPerMember, 32)
	l.WatchesPerMesh = cmp.Or(l.WatchesPerMesh, 256)
	l.WebhooksPerMesh = cmp.Or(l.WebhooksPerMesh, 64)
	l.HookEvents = cmp.Or(l.HookEvents, 60)
	return l
}

// Errors that callers of Broker decide on.
var (
	// ErrClosed is returned by every operation after Close.
	ErrClosed = errors.New("broker is closed")
	// ErrBadName is wrapped by CreateMesh for a name no slug can be made of, or a display name that is empty, too long or holds control characters.
	ErrBadName = errors.New("bad name")
	// ErrBadKey is returned by CreateMesh for a key that is not 64 lower-case hex digits.
	ErrBadKey = errors.New("key must be 64 lower-case hex digits")
	// ErrFull is wrapped when a limit of meshes or members is reached.
	ErrFull = errors.New("limit reached")
	// ErrNotFound is wrapped when a mesh or a member does not exist.
	ErrNotFound = errors.New("not found")
)

// Timings of a socket that no caller needs to change.
const (
	pingEvery     = 30 * time.Second // WebSocket pings to every registered connection
	readDeadline  = 75 * time.Second // a socket that answers none for this long is dead
	lingerFor     = time.Second      // after a close frame, for the peer's
	graceful      = time.Second      // for a hello, however many sockets are waiting
	storeDeadline = 10 * time.Second // one request to JetStream

	codeLookupEvery = 2 * time.Second
)

const (
	outboundFrames = 16  // frames waiting for one socket's writer
	outboundEvents = 256 // presence events waiting for it; further ones are dropped
	liveCopies     = 256 // republished references waiting for one connection; further ones are read from the stream
	maxGarbage     = 20  // frames in a row that are not JSON, or precede hello
	helloMaxBytes  = 64 << 10
	readBuffer     = 2 << 10 // of each socket
	writeBuffer    = 4 << 10 // of each socket that is being written to
	codeLookups    = 30      // invite codes that one address may look up at once, and again one every codeLookupEvery
	signInTries    = 40      // requests about accounts without a token that one address may make at once, and again one every codeLookupEvery
	usedSignatures = 65536   // of HTTP requests, remembered; the older ones are refused by their timestamps
)
