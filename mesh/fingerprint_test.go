package mesh

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type fingerprintVector struct {
	Name  string
	Input struct {
		Kind     string  `json:"destination_kind"`
		Ref      string  `json:"destination_ref"`
		ReplyTo  string  `json:"reply_to_id"`
		Priority string  `json:"priority"`
		MetaJSON *string `json:"meta_json"`
		Body     string
		BodyJSON string `json:"body_json"`
	}
	CanonicalMeta  string `json:"canonical_meta"`
	FingerprintHex string `json:"fingerprint_hex"`
}

// The vectors come from running the reference module.
func TestFingerprintMatchesTheReference(t *testing.T) {
	var file struct{ Vectors []fingerprintVector }
	readVectors(t, "fingerprint-vectors.json", &file)
	if len(file.Vectors) != 20 {
		t.Fatalf("%d vectors, want 20", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			in := v.Input
			if in.BodyJSON != "" {
				if err := json.Unmarshal([]byte(in.BodyJSON), &in.Body); err != nil {
					t.Fatal(err)
				}
			}
			var meta json.RawMessage
			if in.MetaJSON != nil {
				meta = json.RawMessage(*in.MetaJSON)
			}
			canonical, err := canonicalMeta(meta)
			if err != nil || string(canonical) != v.CanonicalMeta {
				t.Errorf("canonical meta %q, %v; want %q", canonical, err, v.CanonicalMeta)
			}
			fp, err := Fingerprint(Request{in.Kind, in.Ref, in.ReplyTo, in.Priority, meta, in.Body})
			if err != nil || hex.EncodeToString(fp[:]) != v.FingerprintHex {
				t.Errorf("fingerprint %x, %v; want %s", fp, err, v.FingerprintHex)
			}
		})
	}
}

func TestFingerprintOfReadsTheRecipientAsTheReferenceDoes(t *testing.T) {
	b := fixedIdentity(t, 2).PublicKey()
	for name, c := range map[string]struct {
		to, priority, meta string
		want               string
	}{
		// wire-protocol 6.15.
		"a key":     {b, "next", "", "0e31fd05d724b5c9cd4deb476d7e89e867c0fab791b585bedc9e9af8dc6643bc"},
		"everybody": {"*", "now", `{"z":null,"a":[1,{"c":"é","b":true}]}`, "5e6ef57ad42a1eadeb74f751bf6acf43d573d6c13d42861275c5c5fff006d476"},
	} {
		t.Run(name, func(t *testing.T) {
			fp, err := FingerprintOf(c.to, "hello", c.priority, "", json.RawMessage(c.meta))
			if err != nil || hex.EncodeToString(fp[:]) != c.want {
				t.Errorf("%x, %v", fp, err)
			}
		})
	}
	for to, want := range map[string]Request{
		"@ops":           {Kind: "topic", Ref: "ops"},
		"@all":           {Kind: "topic", Ref: "all"},
		"*":              {Kind: "topic", Ref: "*"},
		"**":             {Kind: "dm", Ref: "**"},
		"#room":          {Kind: "dm", Ref: "#room"},
		"Mou":            {Kind: "dm", Ref: "Mou"},
		" \t\ufeffMou\n": {Kind: "dm", Ref: "Mou"},
		" @ops ":         {Kind: "topic", Ref: "ops"},
		"a b":            {Kind: "dm", Ref: "a b"},
		"\u0085x":        {Kind: "dm", Ref: "\u0085x"},
	} {
		t.Run(fmt.Sprintf("%q", to), func(t *testing.T) {
			got, err := FingerprintOf(to, "", "", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if ref, _ := Fingerprint(want); got != ref {
				t.Errorf("is not %s %q", want.Kind, want.Ref)
			}
		})
	}
}

func TestFingerprintTellsRequestsApart(t *testing.T) {
	print := func(to, body, priority, reply, meta string) [32]byte {
		t.Helper()
		fp, err := FingerprintOf(to, body, priority, reply, json.RawMessage(meta))
		if err != nil {
			t.Fatal(err)
		}
		return fp
	}
	base := print("bob", "x", "", "", "")
	for name, same := range map[string][32]byte{
		"priority next is the default": print("bob", "x", "next", "", ""),
		"null meta is no meta":         print("bob", "x", "", "", "null"),
		"so is null in white space":    print("bob", "x", "", "", " null\n"),
	} {
		if same != base {
			t.Errorf("%s: differs", name)
		}
	}
	for name, other := range map[string][32]byte{
		"an empty object is not no meta": print("bob", "x", "", "", "{}"),
		"another body":                   print("bob", "x ", "", "", ""),
		"another priority":               print("bob", "x", "low", "", ""),
		"another recipient":              print("Bob", "x", "", "", ""),
		"a group of that name":           print("@bob", "x", "", "", ""),
		"a reply":                        print("bob", "x", "", "r", ""),
	} {
		if other == base {
			t.Errorf("%s: same fingerprint", name)
		}
	}
}

func TestFingerprintRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	if _, err := FingerprintOf("bob", "x", "", "", json.RawMessage(deep(64))); err != nil {
		t.Errorf("64 levels are refused: %v", err)
	}
	full := `{"a":"` + strings.Repeat("x", MaxMeta-8) + `"}`
	if _, err := FingerprintOf("bob", "x", "", "", json.RawMessage(full)); err != nil || len(full) != MaxMeta {
		t.Errorf("%d bytes are refused: %v", len(full), err)
	}
	for name, c := range map[string]struct{ to, priority, reply, meta string }{
		"NUL in the recipient":   {"bob\x00r1", "", "r2", ""},
		"NUL at its edge":        {"bob\x00", "", "", ""},
		"NUL in the reply id":    {"bob", "", "r1\x00r2", ""},
		"no recipient":           {"", "", "", ""},
		"a blank recipient":      {" \n", "", "", ""},
		"an unknown priority":    {"bob", "urgent", "", ""},
		"a priority with NUL":    {"bob", "next\x00", "", ""},
		"65 levels":              {"bob", "", "", deep(65)},
		"65 levels of arrays":    {"bob", "", "", `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}"},
		"65 levels in __proto__": {"bob", "", "", `{"__proto__":` + deep(64) + "}"},
		"too much meta":          {"bob", "", "", full + " "},
		"meta that is an array":  {"bob", "", "", "[]"},
		"meta that is a number":  {"bob", "", "", "1e400"},
		"meta that is a string":  {"bob", "", "", `"x"`},
		"meta that is a bool":    {"bob", "", "", "true"},
		"meta of white space":    {"bob", "", "", " "},
		"meta that is not UTF-8": {"bob", "", "", "{\"a\":\"\xff\"}"},
		"meta with a byte mark":  {"bob", "", "", "\ufeff{}"},
		"meta that is cut off":   {"bob", "", "", `{"a":1`},
		"meta with a tail":       {"bob", "", "", `{} {}`},
		"nullish meta":           {"bob", "", "", "nul"},
		"null and more":          {"bob", "", "", "null,"},
	} {
		t.Run(name, func(t *testing.T) {
			if fp, err := FingerprintOf(c.to, "x", c.priority, c.reply, json.RawMessage(c.meta)); !errors.Is(err, ErrBadRequest) || fp != [32]byte{} {
				t.Errorf("got %x, %v", fp, err)
			}
		})
	}
	if _, err := Fingerprint(Request{Kind: "group", Ref: "x"}); !errors.Is(err, ErrBadRequest) {
		t.Errorf("an unknown kind: %v", err)
	}
}

// A reader that accepts less or more than JSON would let two programs disagree on
// what was sent.
func TestCanonicalReaderAcceptsJSONAndNothingElse(t *testing.T) {
	for _, text := range []string{
		`01`, `-`, `-01`, `.5`, `1.`, `1.e5`, `1e`, `1e+`, `+1`, `0x1`, `1_000`, `NaN`, `Infinity`,
		`"`, `"\x41"`, `"\u12"`, `"\u12G4"`, "\"\\u\x10\x11\x12\x13\"", `"\`, "\"\t\"", "\"\n\"", "\"\x00\"", `'a'`,
		`[1,]`, `[,1]`, `[1 2]`, `[`, `]`, `[1`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{1:1}`, `{"a" 1}`, `{"a":1 "b":2}`,
		`tru`, `truee`, `TRUE`, `nulll`, "\v1", "\f1", "\u00a01", `//x`, `1 //x`, `{}{}`,
	} {
		if out, err := canonicalMeta([]byte(text)); err == nil {
			t.Errorf("%q is read as %q", text, out)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(rapid.StringOf(rapid.SampledFrom([]rune("{}[]:,\"\\/ubfnrt019.-+eEaA \t\n\x01\x1fé😀"))).Draw(t, "text"))
		_, err := canonicalMeta(text)
		if len(text) > 0 && (err == nil) != json.Valid(text) {
			t.Fatalf("%q: %v, but encoding/json says %t", text, err, json.Valid(text))
		}
	})
}

func TestNumbersPrintAsInECMAScript(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "-0.0": "0", "0e400": "0", "1e-400": "0", "-1e-400": "0",
		"1e-6": "0.000001", "9.99e-7": "9.99e-7", "-1e-7": "-1e-7", "1e-7": "1e-7", "1.5e-10": "1.5e-10",
		"999999999999999999999": "1e+21", "999999999999999900000": "999999999999999900000", "-1e21": "-1e+21",
		"1.7976931348623157e308": "1.7976931348623157e+308", "1.7976931348623159e308": "null", "-1e309": "null",
		"5e-324": "5e-324", "2.2250738585072014e-308": "2.2250738585072014e-308", "3e-324": "5e-324", "2e-324": "0",
		"9007199254740993": "9007199254740992", "0.1": "0.1", "100": "100", "1E2": "100", "123e-20": "1.23e-18",
		"4.35": "4.35", "1.0000000000000002": "1.0000000000000002", "5e-7": "5e-7", "1e100": "1e+100",
	} {
		if got, err := canonicalMeta([]byte("[" + in + "]")); err != nil || string(got) != "["+want+"]" {
			t.Errorf("%s prints as %s, %v; want %s", in, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		x := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
		if math.IsNaN(x) || math.IsInf(x, 0) {
			t.Skip()
		}
		printed := string(appendNumber(nil, x))
		back, err := strconv.ParseFloat(printed, 64)
		if err != nil || back != x {
			t.Fatalf("%g prints as %s, which reads as %g, %v", x, printed, back, err)
		}
		if again, err := canonicalMeta([]byte(printed)); err != nil || string(again) != printed {
			t.Fatalf("%s is not stable: %s, %v", printed, again, err)
		}
	})
}

// jsonText draws a JSON text of an object and the same object written otherwise:
// keys in another order, other white space, characters escaped.
func jsonTexts(t *rapid.T, depth int) (one, other string) {
	space := rapid.SampledFrom([]string{"", " ", "\n\t", "\r\n "})
	str := func(label string) (string, string) {
		s := rapid.StringN(0, 6, -1).Draw(t, label)
		plain, _ := json.Marshal(s)
		var escaped strings.Builder
		for i := 0; i < len(utf16Of(s)); i += 2 {
			units := utf16Of(s)
			fmt.Fprintf(&escaped, `\u%02X%02x`, units[i], units[i+1])
		}
		return string(plain), `"` + escaped.String() + `"`
	}
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	if depth == 0 {
		kind = 5
	} else if depth > 3 {
		kind = rapid.IntRange(0, 3).Draw(t, "leaf")
	}
	switch kind {
	case 0:
		word := rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "word")
		return word, word
	case 1:
		n := rapid.IntRange(-1000, 1000).Draw(t, "n")
		return strconv.Itoa(n), strconv.Itoa(n) + ".0e+00"
	case 2, 3:
		return str("string")
	case 4:
		var as, bs []string
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			a, b := jsonTexts(t, depth+1)
			as, bs = append(as, a), append(bs, space.Draw(t, "space")+b)
		}
		return "[" + strings.Join(as, ",") + "]", "[" + strings.Join(bs, ",") + " ]"
	default:
		var as, bs []string
		seen := map[string]bool{}
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			ka, kb := str("key")
			if rapid.Bool().Draw(t, "index") {
				ka = strconv.Quote(strconv.Itoa(rapid.IntRange(0, 30).Draw(t, "i")))
				kb = ka
			}
			var key string
			json.Unmarshal([]byte(ka), &key)
			if seen[key] {
				continue
			}
			seen[key] = true
			va, vb := jsonTexts(t, depth+1)
			as = append(as, ka+":"+va)
			bs = append(bs, space.Draw(t, "space")+kb+space.Draw(t, "space")+":"+vb)
		}
		bs = rapid.Permutation(bs).Draw(t, "order")
		return "{" + strings.Join(as, ",") + "}", "{" + strings.Join(bs, ",") + "}"
	}
}

func TestFingerprintDependsOnWhatMetaMeansNotOnHowItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, other := jsonTexts(t, 0)
		a, err := FingerprintOf("bob", "x", "", "", json.RawMessage(one))
		if err != nil {
			t.Fatalf("%s: %v", one, err)
		}
		b, err := FingerprintOf("bob", "x", "", "", json.RawMessage(other))
		if err != nil {
			t.Fatalf("%s: %v", other, err)
		}
		if a != b {
			t.Fatalf("differ:\n%s\n%s", one, other)
		}
		// The canonical form is JSON, means the same, and is its own canonical form.
		canonical, err := canonicalMeta([]byte(one))
		if err != nil {
			t.Fatal(err)
		}
		var x, y any
		if json.Unmarshal([]byte(one), &x) != nil || json.Unmarshal(canonical, &y) != nil || fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("%s became %s", one, canonical)
		}
		if again, err := canonicalMeta(canonical); err != nil || string(again) != string(canonical) {
			t.Fatalf("%s became %s, %v", canonical, again, err)
		}
	})
}

func TestFingerprintSurvivesTheBus(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "bytes")) })
		r := Request{Kind: "dm", Ref: text.Draw(t, "ref"), ReplyTo: text.Draw(t, "reply"), Body: text.Draw(t, "body")}
		before, err := Fingerprint(r)
		if err != nil {
			t.Fatal(err)
		}
		carried, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Request
		if err := json.Unmarshal(carried, &back); err != nil {
			t.Fatal(err)
		}
		if after, err := Fingerprint(back); err != nil || after != before {
			t.Fatalf("%q became %q: %x, %x, %v", r, back, before, after, err)
		}
	})
}

func TestKeyOrderIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.StringN(0, 4, -1), rapid.Map(rapid.Uint64Range(0, 5_000_000_000), func(n uint64) string { return strconv.FormatUint(n, 10) }),
			rapid.SampledFrom([]string{"0", "00", "01", "-1", "4294967294", "4294967295", "99999999999"}))
		keys := rapid.SliceOfN(rapid.Map(word, utf16Of), 3, 3).Draw(t, "keys")
		slices.SortFunc(keys, compareKeys)
		for i, a := range keys {
			for j, b := range keys {
				if c := compareKeys(a, b); c != -compareKeys(b, a) || (c == 0) != (a == b) || i < j && c > 0 {
					t.Fatalf("%x and %x compare as %d", a, b, c)
				}
			}
		}
	})
}
