package mesh

import (
	"slices"
	"testing"
)

func TestEveryOperationNeedsACapabilityThatExists(t *testing.T) {
	all := Capabilities()
	for op, need := range opCapability {
		if need != "" && !slices.Contains(all, need) {
			t.Errorf("%s needs %q, which is no capability", op, need)
		}
		if !slices.Contains(OpsOf(need), op) {
			t.Errorf("OpsOf(%q) leaves out %s", need, op)
		}
	}
}
