package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/wire"
)

func TestFetch(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "":
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/file", http.StatusFound)
		default:
			io.WriteString(w, "bytes of "+r.URL.Path)
		}
	}))
	t.Cleanup(srv.Close)
	local := strings.TrimPrefix(srv.URL, "http://")
	_, port, _ := net.SplitHostPort(local)
	dialed := ""
	mesh := func(broker string) *Mesh {
		return NewMesh(MeshConfig{BrokerURL: broker, Member: identity(t), Clock: clockwork.NewFakeClock(), Rand: rand.Reader, Handler: silent{}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialed = addr
			return (&net.Dialer{}).DialContext(ctx, network, local)
		}})
	}
	near, far := mesh("ws://127.0.0.1:1/ws"), mesh("wss://192.0.2.1/ws")
	tests := []struct {
		name string
		mesh *Mesh
		url  string
		want string // the body, "" for a refusal
		err  error
	}{
		{"a broker of this machine may name this machine", near, "http://localhost:" + port + "/file", "bytes of /file", nil},
		{"a broker far away may name itself", far, "http://192.0.2.1/file", "bytes of /file", nil},
		{"and another public address", far, "http://198.51.100.7:9000/file", "bytes of /file", nil},
		{"but not this machine", far, "http://127.0.0.1:" + port + "/file", "", ErrPrivateAddress},
		{"under no name", far, "http://localhost:" + port + "/file", "", ErrPrivateAddress},
		{"nor a private network", far, "http://10.0.0.1/file", "", ErrPrivateAddress},
		{"nor a link's own", far, "http://169.254.169.254/latest/meta-data", "", ErrPrivateAddress},
		{"nor in the other spelling", far, "http://[::ffff:127.0.0.1]/file", "", ErrPrivateAddress},
		{"a redirect is not followed", near, srv.URL + "/moved", "<a", nil},
		{"another scheme is refused", near, "file:///etc/passwd", "", nil},
		{"no url at all is refused", near, "", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dialed = ""
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			res, err := tt.mesh.Fetch(ctx, tt.url)
			if tt.want == "" {
				if err == nil || tt.err != nil && !errors.Is(err, tt.err) || dialed != "" {
					t.Errorf("%v, dialed %q", err, dialed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if data, err := io.ReadAll(res.Body); err != nil || !strings.HasPrefix(string(data), tt.want) {
				t.Errorf("%q %v", data, err)
			}
		})
	}
	t.Run("an error does not show the url", func(t *testing.T) {
		far.cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
		if _, err := far.Fetch(t.Context(), "http://192.0.2.1/file?ticket=secret"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	})
	if privateAddress([]netip.Addr{netip.MustParseAddr("192.0.2.1")}) || !privateAddress(nil) {
		t.Error("no address is no public one")
	}
}

type silent struct{}

func (silent) Push(context.Context, Source, []wire.Push) ([]wire.ClientAck, error) { return nil, nil }
func (silent) Receipts(context.Context, []wire.Receipt) error                      { return nil }
func (silent) State(Source, State)                                                 {}
func (silent) Frame(context.Context, Source, string, []byte)                       {}
