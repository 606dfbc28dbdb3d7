//go:build !linux

// Command guest is the first process of a Linux test machine.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "guest: runs on Linux only")
	os.Exit(1)
}
