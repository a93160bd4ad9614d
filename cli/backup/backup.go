// Package backup is the format of claudemesh backup: a few named files, sealed with a passphrase.
//
//	"CMB2" | time u32 | memory KiB u32 | threads u8 | salt 16 | nonce 24 | length u64 | check 16 | sum 8 | sealed files, length bytes
//
// Numbers are big-endian. argon2id over the passphrase and the salt gives 64 bytes: 32 are the key of XChaCha20-Poly1305 over a tar archive of the files, with
// the whole header as additional data; of the others, check is a hash. sum is the beginning of the SHA-256 of all before it. So the four things that can be
// wrong are told apart: a file that is none or was cut off, a header that was changed, a passphrase that is another, and files that were changed.
//
// The first format, "CMB1" | salt 16 | nonce 24 | sealed config.json with fixed parameters, is read as well.
//
// The invariant: what the header asks for is bounded before any of it is done, so that a hostile file costs no more than a good one.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// Why a backup is not opened.
var (
	ErrFormat     = errors.New("this is no backup of claudemesh")
	ErrVersion    = errors.New("the backup was made by a newer version of the program")
	ErrTruncated  = errors.New("the backup is cut off")
	ErrDamaged    = errors.New("the backup is damaged")
	ErrParameters = errors.New("the backup asks for more memory or time than any that this program makes")
	ErrPassphrase = errors.New("the passphrase is another one")
	ErrTooLarge   = errors.New("the files are too large for a backup")
)

// File is one file of a backup, named by a path of ours.
type File struct {
	Name string
	Data []byte
}

// MaxSize bounds what a backup holds, and what is read of one, in bytes.
const MaxSize = 512 << 20

// Sizes and names of the format.
const (
	magic      = "CMB"
	version    = '2'
	saltSize   = 16
	checkSize  = 16
	sumSize    = 8
	lengthAt   = 4 + 4 + 4 + 1 + saltSize + chacha20poly1305.NonceSizeX
	checkAt    = lengthAt + 8
	sumAt      = checkAt + checkSize
	headerSize = sumAt + sumSize
	maxFiles   = 64
)

// params are those of argon2id. Ours are the second choice of RFC 9106: 64 MiB, three passes, four lanes.
type params struct {
	time, memory uint32
	threads      uint8
}

var ours, first = params{3, 64 << 10, 4}, params{2, 64 << 10, 1}

// bounded reports whether a header may be obeyed: at most 256 MiB.
func (p params) bounded() bool {
	return p.time >= 1 && p.time <= 10 && p.memory >= 8<<10 && p.memory <= 256<<10 && p.threads >= 1 && p.threads <= 16
}

func (p params) derive(passphrase, salt []byte, size uint32) []byte {
	return argon2.IDKey(passphrase, salt, p.time, p.memory, p.threads, size)
}

func check(half []byte) []byte {
	sum := sha256.Sum256(append([]byte("claudemesh-backup-check|"), half...))
	return sum[:checkSize]
}

// Seal makes a backup of the files. random must be secure.
func Seal(files []File, passphrase []byte, random io.Reader) ([]byte, error) {
	text, err := pack(files)
	if err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	copy(head, magic)
	head[3] = version
	binary.BigEndian.PutUint32(head[4:], ours.time)
	binary.BigEndian.PutUint32(head[8:], ours.memory)
	head[12] = ours.threads
	if _, err := io.ReadFull(random, head[13:lengthAt]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	binary.BigEndian.PutUint64(head[lengthAt:], uint64(len(text)+chacha20poly1305.Overhead))
	key := ours.derive(passphrase, head[13:13+saltSize], 64)
	copy(head[checkAt:], check(key[32:]))
	sum := sha256.Sum256(head[:sumAt])
	copy(head[sumAt:], sum[:])
	box, err := chacha20poly1305.NewX(key[:32])
	if err != nil {
		return nil, fmt.Errorf("seal backup: %w", err)
	}
	return box.Seal(head, head[13+saltSize:lengthAt], text, slices.Clone(head)), nil
}

// Open opens one. Errors: those above; for a backup of the first format ErrPassphrase stands for ErrDamaged, too, which that cannot tell apart.
func Open(data, passphrase []byte) ([]File, error) {
	switch {
	case len(data) < 4 || string(data[:3]) != magic:
		return nil, ErrFormat
	case data[3] == '1':
		return openFirst(data, passphrase)
	case data[3] != version:
		return nil, ErrVersion
	case len(data) < headerSize:
		return nil, ErrTruncated
	}
	head, sealed := data[:headerSize], data[headerSize:]
	if sum := sha256.Sum256(head[:sumAt]); !bytes.Equal(sum[:sumSize], head[sumAt:]) {
		return nil, fmt.Errorf("%w: its header was changed", ErrDamaged)
	}
	p := params{binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:]), head[12]}
	length := binary.BigEndian.Uint64(head[lengthAt:])
	switch {
	case !p.bounded() || length > MaxSize+MaxSize/8:
		return nil, ErrParameters
	case uint64(len(sealed)) < length:
		return nil, fmt.Errorf("%w: %d of %d bytes are there", ErrTruncated, len(sealed), length)
	case uint64(len(sealed)) > length:
		return nil, fmt.Errorf("%w: something stands behind it", ErrDamaged)
	}
	key := p.derive(passphrase, head[13:13+saltSize], 64)
	if subtle.ConstantTimeCompare(check(key[32:]), head[checkAt:sumAt]) != 1 {
		return nil, ErrPassphrase
	}
	text, err := open(key[:32], head[13+saltSize:lengthAt], sealed, head)
	if err != nil {
		return nil, fmt.Errorf("%w: its files were changed", ErrDamaged)
	}
	return unpack(text)
}

func openFirst(data, passphrase []byte) ([]File, error) {
	const head = 4 + saltSize + chacha20poly1305.NonceSizeX
	if len(data) < head+chacha20poly1305.Overhead {
		return nil, ErrTruncated
	}
	text, err := open(first.derive(passphrase, data[4:4+saltSize], 32), data[4+saltSize:head], data[head:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w, or the backup is damaged", ErrPassphrase)
	}
	return []File{{"config.json", text}}, nil
}

func open(key, nonce, sealed, with []byte) ([]byte, error) {
	box, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return box.Open(nil, nonce, sealed, with)
}

func pack(files []File) ([]byte, error) {
	var out bytes.Buffer
	size := 0
	w := tar.NewWriter(&out)
	for _, f := range files {
		if size += len(f.Data); size > MaxSize || len(files) > maxFiles {
			return nil, ErrTooLarge
		}
		err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o600, Size: int64(len(f.Data)), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write(f.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return out.Bytes(), nil
}

// unpack reads the archive. What it names is for the caller to judge: a name is never a place to write to by itself.
func unpack(text []byte) ([]File, error) {
	var files []File
	size := 0
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil || h.Typeflag != tar.TypeReg || len(files) >= maxFiles {
			return nil, fmt.Errorf("%w: its archive is not one of ours", ErrDamaged)
		}
		data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
		if size += len(data); err != nil || size > MaxSize {
			return nil, fmt.Errorf("%w: its archive is not one of ours", ErrDamaged)
		}
		files = append(files, File{h.Name, data})
	}
}
