package backup

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

var update = flag.Bool("update", false, "write the golden files anew")

const passphrase = "correct horse battery staple"

func sample() []File {
	return []File{{"config.json", []byte(`{"version":1,"meshes":[]}`)}, {"daemon/outbox.db", bytes.Repeat([]byte("row"), 1000)}, {"empty", nil}}
}

// counting is randomness that is the same every time.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

func sealed(t testing.TB) []byte {
	t.Helper()
	data, err := Seal(sample(), []byte(passphrase), &counting{})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func same(a, b []File) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}

func TestTheGoldenVector(t *testing.T) {
	const path = "testdata/golden.cmb"
	if *update {
		if err := os.WriteFile(path, sealed(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, sealed(t)) {
		t.Error("the format has changed: what was backed up before must stay readable")
	}
	if got, err := Open(want, []byte(passphrase)); err != nil || !same(got, sample()) {
		t.Errorf("%v %v", got, err)
	}
}

func TestTheFirstFormatIsRead(t *testing.T) {
	head := append([]byte("CMB1"), bytes.Repeat([]byte{7}, saltSize+chacha20poly1305.NonceSizeX)...)
	box, err := chacha20poly1305.NewX(first.derive([]byte(passphrase), head[4:4+saltSize], 32))
	if err != nil {
		t.Fatal(err)
	}
	data := box.Seal(head, head[4+saltSize:], []byte("{}"), nil)
	if got, err := Open(data, []byte(passphrase)); err != nil || !same(got, []File{{"config.json", []byte("{}")}}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := Open(data, []byte("another")); !errors.Is(err, ErrPassphrase) {
		t.Error(err)
	}
	if _, err := Open(data[:50], []byte(passphrase)); !errors.Is(err, ErrTruncated) {
		t.Error(err)
	}
}

func TestWhatCanBeWrongIsToldApart(t *testing.T) {
	good := sealed(t)
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] ^= to
		return b
	}
	// asks is a header of somebody who can compute the sum, too.
	asks := func(p params, length uint64) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[4:], p.time)
		binary.BigEndian.PutUint32(b[8:], p.memory)
		b[12] = p.threads
		binary.BigEndian.PutUint64(b[lengthAt:], length)
		sum := sha256.Sum256(b[:sumAt])
		copy(b[sumAt:], sum[:sumSize])
		return b
	}
	length := binary.BigEndian.Uint64(good[lengthAt:])
	for _, tc := range []struct {
		name string
		data []byte
		pass string
		want error
	}{
		{"another passphrase", good, "correct horse battery stapler", ErrPassphrase},
		{"no passphrase", good, "", ErrPassphrase},
		{"nothing", nil, passphrase, ErrFormat},
		{"another file", []byte("PK\x03\x04 something"), passphrase, ErrFormat},
		{"a newer version", change(3, '2'^'9'), passphrase, ErrVersion},
		{"cut off in the header", good[:headerSize-1], passphrase, ErrTruncated},
		{"cut off behind the header", good[:headerSize], passphrase, ErrTruncated},
		{"cut off by a byte", good[:len(good)-1], passphrase, ErrTruncated},
		{"a byte more", append(bytes.Clone(good), 0), passphrase, ErrDamaged},
		{"a bit of the salt", change(14, 1), passphrase, ErrDamaged},
		{"a bit of the parameters", change(5, 1), passphrase, ErrDamaged},
		{"a bit of the files", change(headerSize+100, 1), passphrase, ErrDamaged},
		{"a bit of the tag", change(len(good)-1, 1), passphrase, ErrDamaged},
		{"four gigabytes of memory", asks(params{3, 4 << 20, 4}, length), passphrase, ErrParameters},
		{"a million passes", asks(params{1 << 20, 64 << 10, 4}, length), passphrase, ErrParameters},
		{"no pass", asks(params{0, 64 << 10, 4}, length), passphrase, ErrParameters},
		{"no lane", asks(params{3, 64 << 10, 0}, length), passphrase, ErrParameters},
		{"an exabyte of files", asks(ours, 1<<60), passphrase, ErrParameters},
		{"weaker parameters than were used", asks(params{1, 8 << 10, 1}, length), passphrase, ErrPassphrase},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := Open(tc.data, []byte(tc.pass)); !errors.Is(err, tc.want) || got != nil {
				t.Errorf("%v %v", got, err)
			}
		})
	}
}

func TestTwoBackupsShareNothing(t *testing.T) {
	a, err1 := Seal(sample(), []byte(passphrase), rand.Reader)
	b, err2 := Seal(sample(), []byte(passphrase), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a[13:lengthAt], b[13:lengthAt]) || bytes.Equal(a[headerSize:headerSize+64], b[headerSize:headerSize+64]) {
		t.Error("salt, nonce or ciphertext repeat")
	}
}

func TestTooManyFilesAreRefused(t *testing.T) {
	if _, err := Seal(make([]File, maxFiles+1), []byte(passphrase), rand.Reader); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

// Opening never panics, and what the fuzzer makes up costs no key derivation unless its header's sum is right.
func FuzzOpen(f *testing.F) {
	good := sealed(f)
	f.Add(good)
	f.Add(good[:headerSize])
	f.Add([]byte("CMB1"))
	f.Add([]byte("CMB2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 4 && data[3] == '1' && len(data) > 100 {
			return // the first format has no sum: every file of it costs 64 MiB and time
		}
		if files, err := Open(data, []byte("x")); err == nil || files != nil {
			t.Errorf("opened with a passphrase that nobody used: %v", files)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	text, err := pack(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:600])
	f.Fuzz(func(t *testing.T, data []byte) {
		if files, err := unpack(data); err == nil && len(files) > maxFiles {
			t.Error("too many files")
		}
	})
}
