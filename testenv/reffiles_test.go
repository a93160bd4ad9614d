package testenv_test

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

// A reference broker hands out a URL of its object store instead of bytes, and takes uploads of web accounts only.
func TestFilesOfAReferenceBroker(t *testing.T) {
	body, key, err := mesh.SealFile([]byte("what a reference client encrypted"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/clear":
			io.WriteString(w, "not encrypted")
		case "/sealed":
			w.Write(body)
		case "/endless":
			for chunk := make([]byte, 1<<20); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(store.Close)
	t.Cleanup(store.CloseClientConnections)
	m := testenv.NewMachine(t)
	m.Stop()
	b := newScripted(t)
	me := mesh.Identity{}
	b.sane = func(ws *websocket.Conn) {
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			var f struct {
				wire.Head
				FileID string `json:"fileId"`
			}
			_ = json.Unmarshal(data, &f)
			var answer any
			switch f.Type {
			case wire.TypeHello:
				answer = map[string]any{"type": wire.TypeHelloAck, "presenceId": "p"}
			case wire.TypeListPeers:
				answer = map[string]any{"type": wire.TypePeersList, "peers": []any{}, "_reqId": f.ReqID}
			case wire.TypeGetFile:
				reply := wire.FileURL{Type: wire.TypeFileURL, FileID: f.FileID, URL: store.URL + "/" + f.FileID, Name: "a.txt", ReqID: f.ReqID}
				if strings.HasPrefix(f.FileID, "sealed") {
					reply.Encrypted = true
					if reply.SealedKey, err = key.SealFor(me.PublicKey(), rand.Reader); err != nil {
						t.Error(err)
					}
				}
				answer = reply
			default:
				continue // silence, as there
			}
			if ws.WriteJSON(answer) != nil {
				return
			}
		}
	}
	me = b.join(m, "ref")
	m.Start()
	m.WaitLink("ref")

	for id, want := range map[string]string{"clear": "not encrypted", "sealed": "what a reference client encrypted"} {
		if got, err := fetchFile(m, "ref", id); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", id, got, err)
		}
	}
	if _, err := fetchFile(m, "ref", "gone"); testenv.Refusal(err) != "broker_refused" || !strings.Contains(err.Error(), "HTTP 403") {
		t.Error(err)
	}
	if _, err := fetchFile(m, "ref", "endless"); testenv.Refusal(err) != "broker_refused" || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
	t.Run("an upload that it refuses is reported with its reason", func(t *testing.T) {
		transfer := handOver(m, bus.FileBegin{Mesh: "ref", Name: "x"}, []byte("x"))
		if err := tryAs(m, bus.OpFileCommit, transfer, nil); testenv.Refusal(err) != "broker_refused" {
			t.Error(err)
		}
	})
}
