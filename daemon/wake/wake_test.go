package wake

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.UnixMilli(1_800_000_000_000)

// pushed is a row that a rung has had for some time.
func pushed(via Rung, ago time.Duration) Row {
	return Row{Via: via, PushedAt: t0.Add(-ago), ArrivedAt: t0.Add(-ago), Tries: 1}
}

func fresh() Row { return Row{ArrivedAt: t0} }

func TestNext(t *testing.T) {
	urgent, low := fresh(), fresh()
	urgent.Urgent, low.Low = true, true
	spent := pushed(OnHook, time.Hour)
	spent.Tries = MaxTries
	old := Row{ArrivedAt: t0.Add(-time.Minute)}
	for _, c := range []struct {
		name string
		f    Facts
		rows []Row
		want Plan
	}{
		{"nothing waits", Facts{Channel: Unproven}, nil, Plan{}},
		{"a shim gets a new message", Facts{Channel: Unproven}, []Row{fresh()}, Plan{Channel: []int{0}, Unshown: 1}},
		{"who wants to be shown nothing is shown nothing", Facts{Channel: Proven, Hush: true}, []Row{fresh(), urgent}, Plan{}},
		{"without a shim the hook that waits is poked", Facts{Hooks: true, Waiter: true, Turn: Idle}, []Row{fresh()}, Plan{Wake: true, Unshown: 1}},
		{"a silent channel is not used", Facts{Channel: Silent, Waiter: true, Turn: Idle}, []Row{fresh()}, Plan{Wake: true, Unshown: 1}},
		{"the nudge comes last", Facts{Channel: Silent, Nudge: true, Turn: Idle}, []Row{fresh()}, Plan{Nudge: true, Unshown: 1, At: t0.Add(ProofLimit)}},
		{"a client that works is left alone", Facts{Channel: Proven, Hooks: true, Turn: Working}, []Row{fresh(), low}, Plan{Unshown: 2}},
		{"but for what is urgent", Facts{Channel: Proven, Hooks: true, Turn: Working}, []Row{fresh(), urgent}, Plan{Channel: []int{1}, Unshown: 2}},
		{"who is busy by its own word gets what is urgent", Facts{Channel: Proven, Turn: Busy}, []Row{fresh(), urgent}, Plan{Channel: []int{1}, Unshown: 2}},
		{
			"an unproven channel is given a short time",
			Facts{Channel: Unproven, Transcript: true, Waiter: true, Turn: Idle},
			[]Row{pushed(OnChannel, time.Second)},
			Plan{Unshown: 1, At: t0.Add(ProofSoon - time.Second)},
		},
		{
			"then it is silent, and the next rung has the message and all that follow",
			Facts{Channel: Unproven, Transcript: true, Waiter: true, Turn: Idle},
			[]Row{pushed(OnChannel, ProofSoon), fresh()},
			Plan{Silent: true, Wake: true, Unshown: 2},
		},
		{
			"a proven one is given longer and is not called silent",
			Facts{Channel: Proven, Transcript: true, Waiter: true, Turn: Idle},
			[]Row{pushed(OnChannel, ProofLimit)},
			Plan{Wake: true, Unshown: 1},
		},
		{
			"a working client keeps what was written to its channel until its tool has ended",
			Facts{Channel: Unproven, Transcript: true, Hooks: true, Turn: Working},
			[]Row{pushed(OnChannel, time.Hour)},
			Plan{Unshown: 1},
		},
		{
			"where nothing could ever tell, the channel has the last word",
			Facts{Channel: Unproven},
			[]Row{pushed(OnChannel, time.Hour)},
			Plan{Unshown: 1},
		},
		{
			"what a hook carried is tried again when nothing tells of it",
			Facts{Channel: Silent, Waiter: true, Turn: Idle, Hooks: true},
			[]Row{pushed(OnHook, HookLimit), pushed(OnWake, time.Second)},
			Plan{Wake: true, Unshown: 2, At: t0.Add(HookLimit - time.Second)},
		},
		{"a summary is left to the inbox", Facts{Channel: Proven}, []Row{pushed(OnDigest, time.Hour)}, Plan{}},
		{"so is what was shown often enough; the session is deaf", Facts{Channel: Proven, Turn: Idle}, []Row{spent}, Plan{Unshown: 1, Deaf: t0.Add(-time.Hour)}},
		{"without any rung it is deaf after a while", Facts{Hooks: true, Turn: Idle}, []Row{old, fresh()}, Plan{Unshown: 2, Deaf: old.ArrivedAt, At: t0.Add(ProofLimit)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Next(c.f, t0, c.rows); !reflect.DeepEqual(got, c.want) {
				t.Errorf("\ngot  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestTake(t *testing.T) {
	urgent, low := fresh(), fresh()
	urgent.Urgent, low.Low = true, true
	hooks := Facts{Hooks: true, Turn: Working}
	for _, c := range []struct {
		name string
		f    Facts
		b    Boundary
		rows []Row
		want []int
	}{
		{"a prompt takes everything", hooks, Prompt, []Row{fresh(), low, urgent}, []int{0, 1, 2}},
		{"between tools the unimportant waits", hooks, Tool, []Row{fresh(), low, urgent}, []int{0, 2}},
		{"who is busy by its own word gets what is urgent", Facts{Turn: Busy}, Prompt, []Row{fresh(), urgent}, []int{1}},
		{"what a proven channel has rides by itself", Facts{Channel: Proven, Turn: Working}, Tool, []Row{pushed(OnChannel, time.Hour)}, nil},
		{"at the end of the turn it should have shown", Facts{Channel: Proven, Turn: Working}, Stop, []Row{pushed(OnChannel, time.Hour)}, []int{0}},
		{"an unproven channel is not trusted for long", Facts{Channel: Unproven, Turn: Working}, Tool, []Row{pushed(OnChannel, ProofSoon), pushed(OnChannel, time.Second)}, []int{0}},
		{"what another hook has just taken is not taken again", hooks, Tool, []Row{pushed(OnHook, time.Second), pushed(OnWake, time.Second)}, nil},
		{"a hook that waits leaves new messages to the channel", Facts{Channel: Unproven, Turn: Idle}, Waiting, []Row{fresh(), pushed(OnChannel, time.Hour)}, []int{1}},
		{"and has them when there is none", Facts{Turn: Idle}, Waiting, []Row{fresh(), low}, []int{0, 1}},
		{"nothing for who wants nothing", Facts{Hush: true}, Prompt, []Row{urgent}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Take(c.f, c.b, t0, c.rows); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// A session is driven at random; the rungs lose what they like. Whatever happens, no message is on two rungs at a time or handed over more often than MaxTries,
// nobody is disturbed who asked not to be, and while a rung is left that works, everything is shown in the end.
func TestWhateverGetsLostNothingIsLostForEver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		f := Facts{
			Channel: rapid.SampledFrom([]Channel{NoShim, Unproven, Silent}).Draw(t, "channel"), Transcript: true, Hooks: true, Waiter: true, Turn: Idle,
		}
		drops := rapid.Bool().Draw(t, "the client drops channel messages")
		rows := make([]Row, rapid.IntRange(1, 5).Draw(t, "messages"))
		for i := range rows {
			rows[i] = Row{ArrivedAt: now, Low: rapid.Bool().Draw(t, "low")}
		}
		shown := make([]int, len(rows))
		push := func(i int, via Rung) {
			if rows[i].Via == via && now.Sub(rows[i].PushedAt) < ProofSoon {
				t.Fatalf("row %d is pushed twice to rung %d", i, via)
			}
			rows[i].Via, rows[i].PushedAt = via, now
			if rows[i].Tries++; rows[i].Tries > MaxTries {
				t.Fatalf("row %d is handed over %d times", i, rows[i].Tries)
			}
		}
		for step := 0; step < 20; step++ {
			var open []Row
			var index []int
			for i, r := range rows {
				if shown[i] == 0 {
					open, index = append(open, r), append(index, i)
				}
			}
			if len(open) == 0 {
				break
			}
			p := Next(f, now, open)
			if p.Silent {
				if !drops {
					t.Fatal("a channel that works was called silent")
				}
				f.Channel = Silent
			}
			for _, i := range p.Channel {
				push(index[i], OnChannel)
				if !drops {
					shown[index[i]]++
					f.Channel = Proven
				}
			}
			if p.Wake {
				for _, i := range Take(f, Waiting, now, open) {
					push(index[i], OnWake)
					shown[index[i]]++
				}
			}
			if now = now.Add(time.Second); !p.At.IsZero() && p.At.After(now) {
				now = p.At
			}
		}
		for i, n := range shown {
			if n != 1 {
				t.Fatalf("row %d was shown %d times: %+v", i, n, rows[i])
			}
		}
	})
}
