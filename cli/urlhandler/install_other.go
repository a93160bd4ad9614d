//go:build !linux && !darwin && !windows

package urlhandler

import (
	"context"
	"errors"
)

// ErrUnsupported is returned where it is not known how a system opens links.
var ErrUnsupported = errors.New("how this system opens links is not known")

// Install fails here.
func (h Handler) Install(context.Context) (Result, error) { return Result{}, ErrUnsupported }

// Uninstall fails here.
func (h Handler) Uninstall(context.Context) (Result, error) { return Result{}, ErrUnsupported }
