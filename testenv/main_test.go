package testenv_test

import (
	"os"
	"testing"

	"claudemesh/testenv"
)

func TestMain(m *testing.M) {
	testenv.RunIfChild()
	os.Exit(m.Run())
}
