package mesh

import (
	"errors"
	"strings"
	"testing"
)

type receiptVector struct {
	Name      string
	Seed      string
	Receipt   Receipt
	Signed    string
	Signature string
}

func readReceiptVectors(t testing.TB) []receiptVector {
	t.Helper()
	var file struct{ Vectors []receiptVector }
	readVectors(t, "receipt-vectors.json", &file)
	if len(file.Vectors) < 4 {
		t.Fatalf("%d vectors", len(file.Vectors))
	}
	return file.Vectors
}

func TestReceiptsHaveTheStringAndSignatureOfTheVectors(t *testing.T) {
	for _, v := range readReceiptVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			by, err := NewIdentity(strings.NewReader(string(unhex(t, v.Seed))))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(v.Receipt.signed()); got != v.Signed {
				t.Errorf("string is %s", got)
			}
			if got, err := v.Receipt.Sign(by); err != nil || got != v.Signature {
				t.Errorf("signature is %s, %v", got, err)
			}
			if err := v.Receipt.Verify(v.Signature); err != nil {
				t.Error(err)
			}
		})
	}
}

func goodReceipt(t testing.TB) (Receipt, Identity) {
	t.Helper()
	to := fixedIdentity(t, 2)
	return Receipt{MeshID: "m1", SenderMember: fixedIdentity(t, 1).PublicKey(), Recipient: to.PublicKey(), MessageID: "c1", State: ReceiptSurfaced, Via: "channel", By: "bob", At: 1777898000000}, to
}

func TestAReceiptHoldsForWhatItSaysOnly(t *testing.T) {
	good, by := goodReceipt(t)
	sig, err := good.Sign(by)
	if err != nil {
		t.Fatal(err)
	}
	other := fixedIdentity(t, 3).PublicKey()
	for name, change := range map[string]func(*Receipt){
		"another mesh":        func(r *Receipt) { r.MeshID = "m2" },
		"another sender":      func(r *Receipt) { r.SenderMember = other },
		"another recipient":   func(r *Receipt) { r.Recipient = other },
		"another message":     func(r *Receipt) { r.MessageID = "c2" },
		"another state":       func(r *Receipt) { r.State = ReceiptDelivered },
		"another way":         func(r *Receipt) { r.Via = "hook" },
		"another session":     func(r *Receipt) { r.By = "eve" },
		"another time":        func(r *Receipt) { r.At++ },
		"a field moved":       func(r *Receipt) { r.Via, r.By = "channel|bob", "" },
		"an escape spelled":   func(r *Receipt) { r.Via, r.By = "channel%7Cbob", "" },
		"sender and receiver": func(r *Receipt) { r.SenderMember, r.Recipient = r.Recipient, r.SenderMember },
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			r := good
			change(&r)
			if err := r.Verify(sig); !errors.Is(err, ErrReceiptSignature) {
				t.Errorf("%v", err)
			}
		})
	}
	for _, bad := range []string{"", "00", sig[:126], sig + "00", strings.Repeat("0", 128), strings.Repeat("z", 128)} {
		if err := good.Verify(bad); !errors.Is(err, ErrReceiptSignature) {
			t.Errorf("signature %.20q: %v", bad, err)
		}
	}
}

func TestAMalformedReceiptIsNeitherSignedNorBelieved(t *testing.T) {
	good, by := goodReceipt(t)
	sig, _ := good.Sign(by)
	for name, change := range map[string]func(*Receipt){
		"no mesh":                func(r *Receipt) { r.MeshID = "" },
		"no message":             func(r *Receipt) { r.MessageID = "" },
		"a long message id":      func(r *Receipt) { r.MessageID = strings.Repeat("x", MaxReceiptID+1) },
		"a line break":           func(r *Receipt) { r.By = "a\nb" },
		"bytes that are no text": func(r *Receipt) { r.Via = "\xff" },
		"a long name":            func(r *Receipt) { r.By = strings.Repeat("x", MaxReceiptWord+1) },
		"a state of its own":     func(r *Receipt) { r.State = "answered" },
		"no time":                func(r *Receipt) { r.At = 0 },
		"a time far off":         func(r *Receipt) { r.At = maxReceiptAt + 1 },
		"a sender that is none":  func(r *Receipt) { r.SenderMember = "ada" },
		"no recipient":           func(r *Receipt) { r.Recipient = "" },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			change(&r)
			if _, err := r.Sign(by); !errors.Is(err, ErrReceiptMalformed) {
				t.Errorf("signed: %v", err)
			}
			if err := r.Verify(sig); !errors.Is(err, ErrReceiptMalformed) {
				t.Errorf("verified: %v", err)
			}
		})
	}
	if _, err := good.Sign(fixedIdentity(t, 9)); !errors.Is(err, ErrReceiptMalformed) {
		t.Errorf("signed by somebody else: %v", err)
	}
}

// Different receipts have different strings: a fuzzer takes the string apart again.
func FuzzReceipt(f *testing.F) {
	for _, v := range readReceiptVectors(f) {
		f.Add(v.Receipt.MeshID, v.Receipt.SenderMember, v.Receipt.Recipient, v.Receipt.MessageID, v.Receipt.State, v.Receipt.Via, v.Receipt.By, v.Receipt.At, v.Signature)
	}
	f.Fuzz(func(t *testing.T, meshID, sender, recipient, id, state, via, by string, at int64, sig string) {
		r := Receipt{MeshID: meshID, SenderMember: sender, Recipient: recipient, MessageID: id, State: state, Via: via, By: by, At: at}
		err := r.Verify(sig)
		if err != nil && !errors.Is(err, ErrReceiptMalformed) && !errors.Is(err, ErrReceiptSignature) {
			t.Fatalf("error of no kind: %v", err)
		}
		if errors.Is(err, ErrReceiptMalformed) {
			return
		}
		parts := strings.Split(string(r.signed()), "|")
		if len(parts) != 9 {
			t.Fatalf("%d fields in %q", len(parts), r.signed())
		}
		back := strings.NewReplacer("%7C", "|", "%25", "%").Replace
		if back(parts[1]) != meshID || parts[2] != sender || parts[3] != recipient || back(parts[4]) != id || parts[5] != state || back(parts[6]) != via || back(parts[7]) != by {
			t.Fatalf("%+v became %q", r, parts)
		}
	})
}
