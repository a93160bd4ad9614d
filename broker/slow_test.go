package broker

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"claudemesh/wire"
)

// The server's general limits end a request that is slow; a transfer that moves is not ended by them.
func TestASlowLineIsServed(t *testing.T) {
	r := newRig(t)
	const limit = 100 * time.Millisecond
	slow := httptest.NewUnstartedServer(r.broker.Handler())
	slow.Config.ReadTimeout, slow.Config.WriteTimeout = limit, limit
	slow.Start()
	defer slow.Close()
	fast := r.http.URL
	r.http.URL = slow.URL
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than the sockets of a loopback connection hold
	half, end := io.Pipe()
	go func() {
		end.Write(body[:len(body)/2])
		<-time.After(3 * limit) // what is tested is that this time may pass
		end.Write(body[len(body)/2:])
		end.Close()
	}()
	id := r.mustUpload(upload{who: r.owner, body: body, stream: half})
	r.http.URL = fast
	c := r.member(r.owner)
	url := into[wire.FileURL](c, c.call(wire.TypeGetFile, ref(id))).URL
	res, err := http.Get(slow.URL + url[len("http://127.0.0.1:1"):])
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-time.After(3 * limit)
	if data, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(data, body) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	http.DefaultClient.CloseIdleConnections()
}
