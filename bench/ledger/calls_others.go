//go:build !linux

package ledger

import (
	"errors"
	"fmt"
)

// Calls counts system calls, on Linux.
type Calls struct{}

// CountCalls fails here.
func CountCalls([]Account) (*Calls, error) { return nil, CanCountCalls() }

// CanCountCalls says that it cannot.
func CanCountCalls() error {
	return fmt.Errorf("ledger: count system calls: %w", errors.ErrUnsupported)
}

// Stop returns nothing.
func (*Calls) Stop() ([]int64, error) { return nil, CanCountCalls() }
