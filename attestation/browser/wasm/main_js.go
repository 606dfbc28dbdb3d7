// Command wasm makes package browser callable from JavaScript. It defines one
// function and then waits for calls:
//
//	corridorExamine(request: string): string
package main

import (
	"syscall/js"
	"time"

	"github.com/corridor-enclave/corridor/attestation/browser"
)

func main() {
	js.Global().Set("corridorExamine", js.FuncOf(func(_ js.Value, args []js.Value) any {
		if len(args) != 1 || args[0].Type() != js.TypeString {
			return `{"mistake":"the page has to give one string"}`
		}
		return string(browser.Examine([]byte(args[0].String()), time.Now))
	}))
	select {}
}
