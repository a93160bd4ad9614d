package bus

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
)

func TestATapReadsEverything(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	bus := busConn(t, s)
	must(t, EnsureStreams(ctx, bus))
	must(t, service(t, s).Handle("send", AnySend, 1<<10, echo))
	tap := tapConn(t, s)
	all := listen(t, tap, ">")

	t.Run("requests, messages, events, receipts", func(t *testing.T) {
		must(t, userClient(t, s).Do(ctx, SendSubject("demo", User, SendDM), nil, nil))
		for _, subject := range []string{SessionMsgSubject("demo", "s1"), EventSubject("demo", "peer_join"), ReceiptSubject("demo", User, "m1")} {
			must(t, bus.Publish(subject, []byte(`{"n":1}`)))
		}
		store(t, bus, AllMsgSubject("demo"))
		must(t, bus.Publish("mesh.fence", nil))
		got := all.until(t, "mesh.fence")
		for _, want := range []string{"mesh.demo.user.send.dm", "mesh.demo.msg.session.s1", "mesh.demo.event.peer_join", "mesh.demo.receipt.user.m1"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s was not heard, only %q", want, got)
			}
		}
	})
	t.Run("but no replies, and no operation that carries a secret", func(t *testing.T) {
		must(t, bus.Publish("_INBOX.user.abc.1", []byte("an invite")))
		must(t, bus.Publish(DaemonSubject(User, OpMeshJoin), []byte("an invite")))
		must(t, bus.Publish(DaemonSubject(User, OpMeshShare), nil))
		must(t, bus.Publish(DaemonSubject(User, OpStatus), nil))
		must(t, bus.Publish("mesh.fence", nil))
		if got := all.until(t, "mesh.fence"); !slices.Equal(got, []string{"daemon.user.status"}) {
			t.Errorf("heard %q", got)
		}
	})
	js, err := jetstream.New(tap)
	must(t, err)
	t.Run("the streams and what they keep", func(t *testing.T) {
		var names []string
		for n := range js.StreamNames(ctx).Name() {
			names = append(names, n)
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{StreamEvents, StreamMessages}) {
			t.Fatalf("streams are %q", names)
		}
		var listed int
		for range js.ListStreams(ctx).Info() {
			listed++
		}
		if listed != 2 {
			t.Errorf("%d streams are listed", listed)
		}
		st, err := js.Stream(ctx, StreamMessages)
		must(t, err)
		m, err := st.GetMsg(ctx, 1)
		must(t, err)
		if string(m.Data) != `{"n":1}` {
			t.Errorf("message is %q", m.Data)
		}
		if m, err = st.GetLastMsgForSubject(ctx, SessionMsgSubject("demo", "s1")); err != nil || m.Sequence != 1 {
			t.Errorf("last message is %v, %v", m, err)
		}
		// What `nats stream get` sends.
		r, err := tap.Request("$JS.API.STREAM.MSG.GET.MESSAGES", []byte(`{"seq":1}`), 10*time.Second)
		must(t, err)
		if !bytes.Contains(r.Data, []byte("mesh.demo.msg.session.s1")) {
			t.Errorf("answer is %s", r.Data)
		}
	})
	t.Run("what the service offers", func(t *testing.T) {
		r, err := tap.Request("$SRV.INFO."+ServiceName, nil, 10*time.Second)
		must(t, err)
		var info micro.Info
		must(t, json.Unmarshal(r.Data, &info))
		if info.Name != ServiceName || len(info.Endpoints) != 1 || info.Endpoints[0].Subject != AnySend {
			t.Errorf("info is %+v", info)
		}
		if _, err := tap.Request("$SRV.STATS", nil, 10*time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestATapWritesNothing(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	bus := busConn(t, s)
	must(t, EnsureStreams(ctx, bus))
	must(t, service(t, s).Handle("send", AnySend, 1<<10, echo))
	store(t, bus, SessionMsgSubject("demo", "first"))
	token := grant(t, s, Grant{Role: RoleTap})
	violations := make(chan error, 256)
	tap, err := nats.Connect(s.TCPURL(), nats.Token(token), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	must(t, err)
	defer tap.Close()

	t.Run("whatever it publishes is refused", func(t *testing.T) {
		for _, subject := range []string{
			"mesh.demo.user.send.dm", "mesh.demo.msg.session.s1", "mesh.demo.event.system", "daemon.user.shutdown", "_INBOX.user.x", "x",
			"$JS.API.STREAM.DELETE.MESSAGES", "$JS.API.STREAM.PURGE.MESSAGES", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.MESSAGES",
			"$JS.API.STREAM.MSG.DELETE.MESSAGES", "$JS.API.CONSUMER.CREATE.MESSAGES", "$JS.API.CONSUMER.MSG.NEXT.MESSAGES.c", "$JS.API.STREAM.SNAPSHOT.MESSAGES",
			"$JS.ACK.x", "$JS.FC.x", "$SYS.REQ.USER.INFO", "$SRV.OTHER",
		} {
			must(t, tap.Publish(subject, nil))
			must(t, tap.Flush())
			select {
			case err := <-violations:
				if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"`+subject+`"`) {
					t.Errorf("%s: %v", subject, err)
				}
			case <-ctx.Done():
				t.Errorf("%s was let through", subject)
			}
		}
	})

	// The confused deputy: the answer to a permitted question, aimed at somebody's mailbox.
	const target = "mesh.demo.msg.session.victim"
	questions := map[string]string{
		"$JS.API.INFO": "", "$JS.API.STREAM.NAMES": "", "$JS.API.STREAM.LIST": "", "$JS.API.STREAM.INFO.MESSAGES": "",
		"$JS.API.STREAM.MSG.GET.MESSAGES": `{"seq":1}`, "$JS.API.DIRECT.GET.MESSAGES": `{"seq":1}`, "$JS.API.DIRECT.GET.MESSAGES.mesh.demo.msg.session.first": "",
		"$JS.API.CONSUMER.NAMES.MESSAGES": "", "$JS.API.CONSUMER.LIST.MESSAGES": "", "$JS.API.CONSUMER.INFO.MESSAGES.c": "",
		"$SRV.PING": "", "$SRV.INFO": "", "$SRV.STATS": "", "$SRV.INFO.claudemesh": "", "$SRV.PING.claudemesh": "",
	}
	victim := listen(t, bus, "mesh.demo.msg.>")
	stored := func() uint64 {
		js, err := jetstream.New(bus)
		must(t, err)
		st, err := js.Stream(ctx, StreamMessages)
		must(t, err)
		info, err := st.Info(ctx)
		must(t, err)
		return info.State.LastSeq
	}
	before := stored()
	t.Run("no answer can be aimed out of the tap's account", func(t *testing.T) {
		own := listen(t, tap, ">")
		for subject, body := range questions {
			must(t, tap.PublishRequest(subject, target, []byte(body)))
			// The same question asked honestly proves that the aimed one was answered: the server works through them in order.
			if _, err := tap.Request(subject, []byte(body), 10*time.Second); err != nil {
				t.Errorf("%s: %v", subject, err)
			}
		}
		must(t, tap.Flush())
		aimed := 0
		for range len(questions) {
			for {
				select {
				case m := <-own.ch:
					if m.Subject == target {
						aimed++
						break
					}
					continue
				case <-ctx.Done():
					t.Fatalf("only %d answers came back to the tap", aimed)
				}
				break
			}
		}
		store(t, bus, "mesh.demo.msg.all")
		if got := victim.until(t, "mesh.demo.msg.all"); len(got) != 0 {
			t.Errorf("the tap made the server publish %q", got)
		}
		if n := stored(); n != before+1 {
			t.Errorf("stream grew from %d to %d, by more than the fence", before, n)
		}
		select {
		case err := <-violations:
			t.Errorf("violation: %v", err)
		default:
		}
	})
	t.Run("in the account BUS it could be, which is why a tap is not there", func(t *testing.T) {
		must(t, bus.PublishRequest("$JS.API.STREAM.MSG.GET.MESSAGES", target, []byte(`{"seq":1}`)))
		select {
		case m := <-victim.ch:
			if m.Subject != target {
				t.Errorf("got %s", m.Subject)
			}
		case <-ctx.Done():
			t.Fatal("the server did not follow the reply subject: the test above proves nothing")
		}
	})
	t.Run("nor into another tap", func(t *testing.T) {
		other := listen(t, tapConn(t, s), ">")
		must(t, tap.PublishRequest("$SRV.INFO", "mesh.forged", nil))
		_, err := tap.Request("$SRV.INFO", nil, 10*time.Second)
		must(t, err)
		must(t, bus.Publish("mesh.fence", nil))
		if got := other.until(t, "mesh.fence"); slices.Contains(got, "mesh.forged") {
			t.Errorf("the other tap heard %q", got)
		}
	})
	t.Run("a queue subscription of a tap takes no request away", func(t *testing.T) {
		_, err := tap.QueueSubscribe("mesh.*.*.send.*", "q", func(*nats.Msg) {})
		must(t, err)
		must(t, tap.Flush())
		user := userClient(t, s)
		for range 50 {
			must(t, user.Do(ctx, SendSubject("demo", User, SendDM), nil, nil))
		}
	})
}

func TestTheBrokersStoreIsOutOfReach(t *testing.T) {
	s := startBus(t, nil)
	ctx := ctxOf(t)
	bus := busConn(t, s)
	must(t, EnsureStreams(ctx, bus))
	broker, err := s.BrokerConn()
	must(t, err)
	bjs, err := jetstream.New(broker)
	must(t, err)
	_, err = bjs.CreateStream(ctx, jetstream.StreamConfig{Name: "MAIL", Subjects: []string{"mail.>", "mesh.>"}, MaxBytes: 1 << 20})
	must(t, err)
	_, err = bjs.Publish(ctx, "mail.x", []byte("mail"))
	must(t, err)
	for name, nc := range map[string]*nats.Conn{"the daemon's own connection in BUS": bus, "a tap": tapConn(t, s)} {
		t.Run(name, func(t *testing.T) {
			js, err := jetstream.New(nc)
			must(t, err)
			for n := range js.StreamNames(ctx).Name() {
				if n == "MAIL" {
					t.Error("sees the broker's stream")
				}
			}
			_, err = js.Stream(ctx, "MAIL")
			wantErr(t, err, jetstream.ErrStreamNotFound)
		})
	}
	t.Run("and a message of the bus does not land in it", func(t *testing.T) {
		must(t, bus.Publish("mesh.demo.msg.all", nil))
		must(t, bus.Flush())
		st, err := bjs.Stream(ctx, "MAIL")
		must(t, err)
		info, err := st.Info(ctx)
		must(t, err)
		if info.State.Msgs != 1 {
			t.Errorf("the broker's stream has %d messages", info.State.Msgs)
		}
	})
}
