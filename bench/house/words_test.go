package house_test

import (
	"go/ast"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestDirectionsAreNamed: what is received at one end is sent at the other, so
// both are called by where they go: uplink and downlink.
func TestDirectionsAreNamed(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		ast.Inspect(f.File, func(n ast.Node) bool {
			for _, name := range declared(n) {
				for _, word := range words(name.Name) {
					if word == "rx" || word == "tx" {
						t.Errorf("%s:%d: %s: say uplink (enclave to host) or downlink", f.path, f.line(name.Pos()), name.Name)
					}
				}
			}
			return true
		})
	}
}

// declared returns the identifiers that a node gives names to.
func declared(n ast.Node) []*ast.Ident {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return []*ast.Ident{n.Name}
	case *ast.TypeSpec:
		return []*ast.Ident{n.Name}
	case *ast.ValueSpec:
		return n.Names
	case *ast.Field:
		return n.Names
	case *ast.AssignStmt:
		var names []*ast.Ident
		for _, e := range n.Lhs {
			if name, ok := e.(*ast.Ident); ok {
				names = append(names, name)
			}
		}
		return names
	}
	return nil
}

// words splits a name such as writeRXQueue or tx_bytes into lower-case words.
func words(name string) []string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		startsWord := unicode.IsUpper(r) && i > 0 &&
			(unicode.IsLower(letters[i-1]) || (i+1 < len(letters) && unicode.IsLower(letters[i+1])))
		if startsWord {
			b.WriteByte(' ')
		}
		if r == '_' || unicode.IsDigit(r) {
			r = ' '
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(b.String())
}

func TestWords(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"tx": "tx", "rxBytes": "rx bytes", "writeRXQueue": "write rx queue", "tx_bytes": "tx bytes",
		"ctx": "ctx", "Matrix": "matrix", "TXQueueLen": "tx queue len", "rx0": "rx",
	} {
		if got := strings.Join(words(name), " "); got != want {
			t.Errorf("words(%q) = %q, want %q", name, got, want)
		}
	}
}

// sleepsOnPurpose are the test files that may sleep, and why.
func sleepsOnPurpose() map[string]string {
	return map[string]string{
		"enclave/supervise/process_linux_test.go": "child processes that poll the process table: the kernel tells nobody when an orphan is reaped",
	}
}

// TestCalls looks at calls that are wrong wherever they stand.
func TestCalls(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		ast.Inspect(f.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			complaint := ""
			switch name := selector(call.Fun); {
			case name == "time.Sleep" && f.test() && !f.imports("testing/synctest") && sleepsOnPurpose()[f.path] == "":
				complaint = "a test waits for something, never for some time (remedy: a channel, or testing/synctest)"
			case strings.HasPrefix(name, "log.Fatal") || strings.HasPrefix(name, "log.Panic"):
				complaint = "only main decides to end, and it returns a code"
			case name == "os.Exit" && f.Name.Name != "main" && !f.test():
				complaint = "only main may exit"
			case f.test() && (name == "t.Skip" || name == "t.SkipNow"), name == "t.Skipf" && !saysRemedy(call):
				complaint = `a skipped test says "needs X (remedy: Y)"`
			}
			if complaint != "" {
				t.Errorf("%s:%d: %s", f.path, f.line(call.Pos()), complaint)
			}
			return true
		})
	}
}

// selector returns "time.Sleep" for that expression, and "" for others.
func selector(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + s.Sel.Name
}

func saysRemedy(call *ast.CallExpr) bool {
	if len(call.Args) == 0 {
		return false
	}
	text, ok := call.Args[0].(*ast.BasicLit)
	return ok && strings.Contains(text.Value, "needs ") && strings.Contains(text.Value, "(remedy: ")
}

// TestNothingIsLeftForLater: what is not done is in the documents' limits, where
// users look, and not in a comment.
func TestNothingIsLeftForLater(t *testing.T) {
	t.Parallel()
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`)
	for _, f := range sources(t) {
		for _, group := range f.Comments {
			if later.MatchString(directives(group)) {
				t.Errorf("%s:%d: a comment leaves work for later", f.path, f.line(group.Pos()))
			}
		}
	}
}

// TestGoroutinesAreCounted: a package that starts goroutines has a test that
// fails if one is left.
func TestGoroutinesAreCounted(t *testing.T) {
	t.Parallel()
	starts, counts := map[string]bool{}, map[string]bool{}
	for _, f := range sources(t) {
		dir := filepath.Dir(f.path)
		if f.test() {
			counts[dir] = counts[dir] || f.imports("go.uber.org/goleak")
			continue
		}
		if below(dir, "bench") || f.Name.Name == "main" {
			continue // programs: their end is the end of their goroutines
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				starts[dir] = true
			}
			return true
		})
	}
	for dir := range starts {
		if !counts[dir] {
			t.Errorf("%s starts goroutines, and no test of it counts them (remedy: goleak in TestMain)", dir)
		}
	}
}
