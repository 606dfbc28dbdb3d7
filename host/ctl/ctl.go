// Package ctl is the command line of a host that runs: host ctl. It speaks to the
// control address and changes nothing by itself.
package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// Exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1 // nothing has changed
	ExitUsage  = 2
)

const usage = `usage: host ctl [--control ADDR] [--revision REVISION] [--dry-run] COMMAND

  list [SETTING]             what is in force
  get SETTING                its values, one a line
  set SETTING VALUE...       give it these values
  add SETTING VALUE...       put values into a list
  remove SETTING [VALUE...]  take values out of a list; without any, back to the default
  diff FILE                  what apply would change
  apply FILE                 make the settings what a TOML file says; - is standard input
  patch FILE                 take the steps of a JSON array, all or none; - is standard input
  reload                     read the host's own file again, as on SIGHUP
  drain CID [--wait]         give an enclave no new clients; wait until its last connection has ended
  resume CID                 give it clients again
  enclaves                   health and connections of enclaves
  status                     published ports and their connections
  configure CID FILE [PORT]  give the app of an enclave that waits for it (enclave --startup-port) its configuration,
                             and print the SHA-256 that the enclave answers; --wait: until it waits
  upgrade                    start a new process and hand everything over to it; also: host upgrade

  --control ADDR             unix:PATH or tcp:HOST:PORT of the host
  --revision REVISION        change only what has this revision, as list shows it
  --dry-run                  say what would change, and which mistakes there are
`

// A Command is one call of host ctl.
type Command struct {
	Args    []string // without the program's name
	Control string   // where the host is if Args do not say
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer

	base     string // of URLs
	client   *http.Client
	revision string
	dryRun   bool
	wait     bool
}

// errUsage reports that the command is none.
var errUsage = errors.New("wrong usage")

// Run does what the command says, and returns the exit code.
func (c *Command) Run(ctx context.Context) int {
	words, help, err := c.parse()
	if help {
		fmt.Fprint(c.Stdout, usage)
		return ExitDone
	}
	if err == nil {
		c.connect()
		defer c.client.CloseIdleConnections()
		err = c.do(ctx, words)
	}
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(c.Stderr, "%v\nhost ctl --help lists the commands\n", err)
		return ExitUsage
	case err != nil:
		fmt.Fprintln(c.Stderr, err)
		return ExitFailed
	}
	return ExitDone
}

// parse takes the flags out, wherever they stand.
func (c *Command) parse() (words []string, help bool, err error) {
	args := c.Args
	value := func(name string) (string, error) {
		if len(args) == 0 {
			return "", fmt.Errorf("%w: %s needs a value", errUsage, name)
		}
		v := args[0]
		args = args[1:]
		return v, nil
	}
	for len(args) > 0 && err == nil {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "-h", "-help", "--help":
			return nil, true, nil
		case "--control":
			c.Control, err = value(arg)
		case "--revision":
			c.revision, err = value(arg)
		case "--dry-run":
			c.dryRun = true
		case "--wait":
			c.wait = true
		default:
			if strings.HasPrefix(arg, "--") {
				return nil, false, fmt.Errorf("%w: %s: unknown flag", errUsage, arg)
			}
			words = append(words, arg)
		}
	}
	return words, false, err
}

// connect prepares requests to the control address.
func (c *Command) connect() {
	kind, where, _ := strings.Cut(c.Control, ":")
	c.base = "http://host"
	transport := &http.Transport{}
	if kind == "unix" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", where)
		}
	} else {
		c.base = "http://" + where
	}
	c.client = &http.Client{Transport: transport}
}

// An action does one command; least and most are how many words it takes.
type action struct {
	least, most int
	do          func(c *Command, ctx context.Context, words []string) error
}

const many = 1 << 20

func actions() map[string]action {
	return map[string]action{
		"list":      {0, 1, (*Command).list},
		"get":       {1, 1, (*Command).get},
		"set":       {2, many, (*Command).step},
		"add":       {2, many, (*Command).step},
		"remove":    {1, many, (*Command).step},
		"diff":      {1, 1, (*Command).replace},
		"apply":     {1, 1, (*Command).replace},
		"patch":     {1, 1, (*Command).patch},
		"reload":    {0, 0, (*Command).reload},
		"drain":     {1, 1, (*Command).drain},
		"resume":    {1, 1, (*Command).drain},
		"enclaves":  {0, 0, (*Command).enclaves},
		"status":    {0, 0, (*Command).status},
		"configure": {2, 3, (*Command).configure},
		"upgrade":   {0, 0, (*Command).upgrade},
	}
}

func (c *Command) do(ctx context.Context, words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	a, ok := actions()[words[0]]
	if !ok {
		return fmt.Errorf("%w: %s: unknown command", errUsage, words[0])
	}
	if n := len(words) - 1; n < a.least || n > a.most {
		return fmt.Errorf("%w: %s takes %s", errUsage, words[0], a.takes())
	}
	return a.do(c, ctx, words)
}

func (a action) takes() string {
	switch {
	case a.most == 0:
		return "nothing"
	case a.most == many:
		return fmt.Sprintf("at least %d words", a.least)
	case a.least == a.most:
		return "one word"
	}
	return fmt.Sprintf("%d to %d words", a.least, a.most)
}

// ask sends a request and reads its answer into v. An answer that is no success is
// an error that says what the host said.
func (c *Command) ask(ctx context.Context, method, path string, body []byte, v any) error {
	if c.dryRun && method != http.MethodGet {
		path += "?dry-run"
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.revision != "" {
		req.Header.Set("If-Match", `"`+c.revision+`"`)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("host ctl: no answer at %s (is the host running? --control says where): %w", c.Control, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("host ctl: answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, text)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("host ctl: answer: %w", err)
	}
	return nil
}

// refusal says what the host has against a request, one mistake a line.
func refusal(status int, text []byte) error {
	var a struct{ Mistakes []string }
	if json.Unmarshal(text, &a) != nil || len(a.Mistakes) == 0 {
		return fmt.Errorf("host ctl: the host answers %d: %s", status, bytes.TrimSpace(text))
	}
	says := strings.Join(a.Mistakes, "\n")
	if status != http.StatusBadGateway { // which says that an enclave may have heard it
		says += "\nnothing has changed"
	}
	return &refused{status, says}
}

// refused is what the host has against a request.
type refused struct {
	status int
	says   string
}

func (r *refused) Error() string { return r.says }

// read reads a file, or standard input.
func (c *Command) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.Stdin)
	}
	return os.ReadFile(name)
}

// sorted are the keys of a map in order.
func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
