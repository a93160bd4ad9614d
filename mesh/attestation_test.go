package mesh

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// attestationVectors are made by this package: nobody else signs version 2.
type attestationVectors struct {
	Comment string
	Parent  string // public key of the seed 01…01
	Session string // public key of the seed 04…04
	Vectors []attestationVector
}

type attestationVector struct {
	Name        string
	Caps        []string // as they are given; null: no limit
	Signed      string   // the string that is signed
	Attestation Attestation
}

func TestAttestationVectors(t *testing.T) {
	parent, session, expires := fixedIdentity(t, 1), fixedIdentity(t, 4), time.UnixMilli(1777941200000)
	vector := func(name string, caps []string) attestationVector {
		a := Attest(parent, session.PublicKey(), expires)
		if caps != nil {
			a = AttestLimited(parent, session.PublicKey(), expires, caps)
		}
		return attestationVector{name, caps, string(a.signed()), a}
	}
	want := attestationVectors{
		Comment: "ed25519 over Signed by the parent's key; seeds are 32 equal bytes", Parent: parent.PublicKey(), Session: session.PublicKey(),
		Vectors: []attestationVector{
			vector("no limit is version 1", nil),
			vector("an empty list", []string{}),
			vector("one capability", []string{CapDM}),
			vector("order, case and repetition do not matter", []string{"state-read", "DM", "dm", "Broadcast"}),
			vector("a capability that nobody knows", []string{"fly"}),
			vector("every capability", Capabilities()),
		},
	}
	var file attestationVectors
	readVectors(t, "attestation-vectors.json", &file)
	if len(file.Vectors) != len(want.Vectors) || file.Parent != want.Parent || file.Session != want.Session {
		t.Fatalf("%d vectors by %s", len(file.Vectors), file.Parent)
	}
	for i, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			w := want.Vectors[i]
			if v.Signed != w.Signed || v.Attestation.Signature != w.Attestation.Signature || !slices.Equal(v.Attestation.Caps(), w.Attestation.Caps()) {
				t.Errorf("it says %+v\nmade is %+v", v, w)
			}
			if err := v.Attestation.Check(expires.Add(-time.Hour)); err != nil {
				t.Error(err)
			}
			if (v.Attestation.Caps() == nil) != (v.Caps == nil) || (v.Attestation.Version == 0) != (v.Caps == nil) {
				t.Errorf("caps %v make %+v", v.Caps, v.Attestation)
			}
		})
	}
}

func TestALimitedAttestation(t *testing.T) {
	parent, session, now := fixedIdentity(t, 1), fixedIdentity(t, 4), time.UnixMilli(1777941200000)
	expires := now.Add(12 * time.Hour)
	full := Attest(parent, session.PublicKey(), expires)
	limited := AttestLimited(parent, session.PublicKey(), expires, []string{CapDM, CapRead})
	with := func(a Attestation, version int, caps ...string) Attestation {
		a.Version, a.AllowedCaps = version, &caps
		return a
	}
	without := func(a Attestation, version int) Attestation { a.Version, a.AllowedCaps = version, nil; return a }
	signed := func(a Attestation) Attestation { return attest(parent, a) } // by a member who writes what it likes
	many := make([]string, MaxAllowedCaps+1)
	for i := range many {
		many[i] = "c" + strings.Repeat("x", i%9)
	}
	for name, c := range map[string]struct {
		att  Attestation
		want error
	}{
		"holds":                           {limited, nil},
		"holds in another order and case": {with(limited, 2, "READ", "dm", "read"), nil},
		"of version 1 holds when the version is spelled":   {without(full, 1), nil},
		"without its limits is not signed":                 {without(limited, 0), ErrAttestationSignature},
		"with one capability more is not signed":           {with(limited, 2, CapDM, CapRead, CapKick), ErrAttestationSignature},
		"with one less is not signed":                      {with(limited, 2, CapDM), ErrAttestationSignature},
		"made of one without limits is not signed":         {with(full, 2), ErrAttestationSignature},
		"of version 2 without a list is malformed":         {signed(without(full, 2)), ErrAttestationMalformed},
		"of version 1 with a list is malformed":            {signed(with(limited, 1, CapDM)), ErrAttestationMalformed},
		"with a list and no version is malformed":          {signed(with(limited, 0, CapDM)), ErrAttestationMalformed},
		"of version 3 is malformed":                        {signed(with(limited, 3, CapDM)), ErrAttestationMalformed},
		"of version 3 without a list is malformed":         {signed(without(full, 3)), ErrAttestationMalformed},
		"of a negative version is malformed":               {signed(without(full, -1)), ErrAttestationMalformed},
		"with an empty name is malformed":                  {signed(with(limited, 2, "")), ErrAttestationMalformed},
		"with a comma in a name is malformed":              {signed(with(limited, 2, "dm,read")), ErrAttestationMalformed},
		"with a bar in a name is malformed":                {signed(with(limited, 2, "dm|read")), ErrAttestationMalformed},
		"with a name that lower case changes is malformed": {signed(with(limited, 2, "\u212aick")), ErrAttestationMalformed},
		"with a name of 65 letters is malformed":           {signed(with(limited, 2, strings.Repeat("a", 65))), ErrAttestationMalformed},
		"with a name of 64 letters holds":                  {signed(with(limited, 2, strings.Repeat("a", 64))), nil},
		"with 65 names is malformed":                       {signed(with(limited, 2, many...)), ErrAttestationMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.att.Check(now); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	t.Run("null is as absent", func(t *testing.T) {
		var a Attestation
		if err := json.Unmarshal([]byte(`{"allowed_caps":null}`), &a); err != nil || a.Caps() != nil {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("an empty list stays one on the wire", func(t *testing.T) {
		data, err := json.Marshal(AttestLimited(parent, session.PublicKey(), expires, nil))
		var a Attestation
		if err != nil || json.Unmarshal(data, &a) != nil || a.Caps() == nil || len(a.Caps()) != 0 || a.Check(now) != nil {
			t.Errorf("%s, %v", data, err)
		}
	})
}

// Two lists have one signature exactly when they name the same capabilities; whatever else is changed, nothing holds any more.
func TestTheSignatureBindsTheCapabilities(t *testing.T) {
	parent, session, now := fixedIdentity(t, 1), fixedIdentity(t, 4), time.UnixMilli(1777941200000)
	name := rapid.StringMatching(`[a-dA-D.:_-]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := rapid.SliceOfN(name, 0, 5).Draw(t, "signed"), rapid.SliceOfN(name, 0, 5).Draw(t, "claimed")
		a := AttestLimited(parent, session.PublicKey(), now.Add(time.Hour), mine)
		if err := a.Check(now); err != nil {
			t.Fatalf("%v: %v", mine, err)
		}
		caps := a.Caps()
		for _, c := range mine {
			if !slices.Contains(caps, strings.ToLower(c)) {
				t.Fatalf("%v lost %s", caps, c)
			}
		}
		claimed := a
		claimed.AllowedCaps = &theirs
		same := slices.Equal(canonicalCaps(mine), canonicalCaps(theirs))
		if err := claimed.Check(now); (err == nil) != same {
			t.Fatalf("signed %q, claimed %q: %v", mine, theirs, err)
		}
	})
}

func FuzzAttestation(f *testing.F) {
	var file attestationVectors
	readVectors(f, "attestation-vectors.json", &file)
	for _, v := range file.Vectors {
		data, err := json.Marshal(v.Attestation)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"version":2,"allowed_caps":["dm,read","|"],"expiresAt":1777941200000}`))
	parent, now := fixedIdentity(f, 1), time.UnixMilli(1777941200000-3600_000)
	f.Fuzz(func(t *testing.T, data []byte) {
		var a Attestation
		if json.Unmarshal(data, &a) != nil {
			return
		}
		a = attest(parent, a) // signed by a member, so that the rest decides
		if a.Check(now) != nil {
			return
		}
		caps := a.Caps()
		if (caps == nil) != (a.Version != AttestationLimited) || len(caps) > MaxAllowedCaps {
			t.Fatalf("%+v allows %v", a, caps)
		}
		again := a
		if caps != nil {
			again.AllowedCaps = &caps
		}
		if err := again.Check(now); err != nil || !slices.Equal(again.Caps(), caps) {
			t.Fatalf("%v reads as %v, %v", caps, again.Caps(), err)
		}
	})
}
