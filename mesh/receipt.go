package mesh

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// States that a receipt can tell.
const (
	ReceiptDelivered = "delivered" // the recipient's machine has stored the message and could read it
	ReceiptSurfaced  = "surfaced"  // a session of the recipient was handed it
)

// Limits of a receipt's fields, in bytes.
const (
	MaxReceiptID   = 256
	MaxReceiptWord = 128
)

// Why a receipt is not believed.
var (
	ErrReceiptMalformed = errors.New("receipt malformed")
	ErrReceiptSignature = errors.New("receipt signature does not match")
)

// Receipt is a recipient's word on how far one message has come. It is signed with the key that the message was addressed to, so that no broker can make one
// up, and names the sender, so that none can be used for another member's message with the same id. The signed string is
//
//	claudemesh-receipt-v1|<meshId>|<sender member key>|<recipient key>|<client message id>|<state>|<via>|<by>|<at>
//
// At is in Unix milliseconds of the recipient's clock. In mesh id, message id, via and by, "%" is written "%25" and "|" is written "%7C", so that different
// receipts never have one string. testdata/receipt-vectors.json fixes the bytes. It says nothing about the text: see docs/decisions.md.
type Receipt struct {
	MeshID       string
	SenderMember string // 64 hex
	Recipient    string // 64 hex: a session's key, or a member's
	MessageID    string // the sender's own id of the message
	State        string
	Via          string // how it was surfaced; may be empty
	By           string // display name of the session that surfaced it; may be empty
	At           int64
}

// maxReceiptAt is the end of the year 9999: what has a timestamp of four digits.
const maxReceiptAt = 253402300799999

func (r Receipt) check() error {
	switch {
	case !ValidKey(r.SenderMember), !ValidKey(r.Recipient):
		return fmt.Errorf("%w: it names a key that is none", ErrReceiptMalformed)
	case r.State != ReceiptDelivered && r.State != ReceiptSurfaced:
		return fmt.Errorf("%w: unknown state", ErrReceiptMalformed)
	case r.At <= 0 || r.At > maxReceiptAt:
		return fmt.Errorf("%w: impossible time", ErrReceiptMalformed)
	case r.MeshID == "", r.MessageID == "", !receiptText(r.MeshID, MaxReceiptID), !receiptText(r.MessageID, MaxReceiptID):
		return fmt.Errorf("%w: odd id", ErrReceiptMalformed)
	case !receiptText(r.Via, MaxReceiptWord), !receiptText(r.By, MaxReceiptWord):
		return fmt.Errorf("%w: odd name", ErrReceiptMalformed)
	}
	return nil
}

func receiptText(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (r Receipt) signed() []byte {
	escape := strings.NewReplacer("%", "%25", "|", "%7C").Replace
	return signedString("claudemesh-receipt-v1", escape(r.MeshID), r.SenderMember, r.Recipient, escape(r.MessageID), r.State, escape(r.Via), escape(r.By),
		strconv.FormatInt(r.At, 10))
}

// Sign returns the signature of the recipient, 128 hex digits. by must hold the key that the receipt names. Error: ErrReceiptMalformed.
func (r Receipt) Sign(by Identity) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	if by.PublicKey() != r.Recipient {
		return "", fmt.Errorf("%w: only the recipient signs", ErrReceiptMalformed)
	}
	return by.Sign(r.signed()), nil
}

// Verify returns nil when sig is the recipient's signature of just this. Errors: ErrReceiptMalformed, ErrReceiptSignature. Whether the message was addressed to
// that recipient is the caller's question.
func (r Receipt) Verify(sig string) error {
	if err := r.check(); err != nil {
		return err
	}
	if len(sig) != 128 || !VerifySignature(r.Recipient, r.signed(), sig) {
		return ErrReceiptSignature
	}
	return nil
}
