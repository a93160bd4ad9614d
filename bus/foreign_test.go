package bus

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// foreignEnv names the socket that a copy of the test binary, run as another user, tries to use; see TestAForeignUserIsRefused.
const foreignEnv = "CLAUDEMESH_TEST_FOREIGN_SOCKET"

// foreignMain prints what the stranger got to read from the socket, and how it ended.
func foreignMain() int {
	c, err := net.Dial("unix", os.Getenv(foreignEnv))
	if err != nil {
		fmt.Printf("dial: %v\n", err)
		return 1
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(c)
	fmt.Printf("uid %d read %d bytes: %v\n", os.Getuid(), len(got), err)
	return 0
}
