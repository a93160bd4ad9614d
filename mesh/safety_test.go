package mesh

import "testing"

func TestSafetyNumber(t *testing.T) {
	const a, b = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c", "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
	const want = "28930 70283 15586 98219 33621 31945" // of the reference
	for _, order := range [][2]string{{a, b}, {b, a}} {
		if got, err := SafetyNumber(order[0], order[1]); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	if got, err := SafetyNumber(a, "bob"); err == nil {
		t.Errorf("%q of what is no key", got)
	}
}
