package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines         = 400
	maxTestFileLines     = 550
	maxFunctionLines     = 60
	maxTestFunctionLines = 110 // a test is mostly its table
)

// longOnPurpose are the functions and files that may be longer, and why.
func longOnPurpose() map[string]string {
	return map[string]string{}
}

// A sourceFile is one parsed file of the repository.
type sourceFile struct {
	path string // from the top of the repository
	set  *token.FileSet
	*ast.File
}

func (f sourceFile) test() bool { return strings.HasSuffix(f.path, "_test.go") }

// imports reports whether the file imports exactly this path.
func (f sourceFile) imports(path string) bool {
	for _, i := range f.Imports {
		if i.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}

func (f sourceFile) line(p token.Pos) int { return f.set.Position(p).Line }

// sources parses every file of our module. Modules of their own, testdata and
// hidden folders are not part of it.
func sources(t *testing.T) []sourceFile {
	t.Helper()
	root := top(t)
	var files []sourceFile
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipFolder(root, path, d.Name())
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, sourceFile{path: name, set: set, File: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no sources found")
	}
	return files
}

func skipFolder(root, path, name string) error {
	if path == root {
		return nil
	}
	if strings.HasPrefix(name, ".") || name == "testdata" || name == "artifacts" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	described := map[string]bool{}
	for _, f := range sources(t) {
		dir := filepath.Dir(f.path)
		if f.test() {
			continue
		}
		text := f.Doc.Text()
		described[dir] = described[dir] || strings.HasPrefix(text, "Package "+f.Name.Name+" ") || (f.Name.Name == "main" && strings.HasPrefix(text, "Command "))
		switch f.Name.Name {
		case "util", "utils", "common", "helper", "helpers", "types", "misc", "manager":
			t.Errorf("%s: package %s says nothing about what is in it", f.path, f.Name.Name)
		}
	}
	for dir, ok := range described {
		if !ok {
			t.Errorf("%s: no package comment that starts with \"Package NAME\" or \"Command\"", dir)
		}
	}
}

// TestUnsafe: two files go past the compiler, and say so in their names. One makes
// the ioctl of the module, the other system calls that cannot wait.
func TestUnsafe(t *testing.T) {
	t.Parallel()
	want := []string{"attestation/nsm/device_unsafe_linux.go", "revproxy/eventloop/socket_unsafe_linux.go", "tapstack/nonblock/call_unsafe_linux.go"}
	var found []string
	for _, f := range sources(t) {
		if f.imports("unsafe") || f.imports("C") {
			found = append(found, f.path)
		}
	}
	if !slices.Equal(found, want) {
		t.Errorf("unsafe in %v, want %v", found, want)
	}
}

func TestLengths(t *testing.T) {
	t.Parallel()
	excused := longOnPurpose()
	used := map[string]bool{}
	complain := func(key string, length, limit int) {
		if length <= limit {
			return
		}
		if _, ok := excused[key]; ok {
			used[key] = true
			return
		}
		t.Errorf("%s has %d lines, more than %d", key, length, limit)
	}
	for _, f := range sources(t) {
		fileLimit, limit := maxFileLines, maxFunctionLines
		if f.test() {
			fileLimit, limit = maxTestFileLines, maxTestFunctionLines
		}
		complain(f.path, f.line(f.FileEnd-1), fileLimit)
		for _, d := range f.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			length := f.line(function.End()) - f.line(function.Pos()) + 1
			complain(f.path+":"+function.Name.Name, length, limit)
		}
	}
	for key := range excused {
		if !used[key] {
			t.Errorf("%s is excused for its length, and need not be", key)
		}
	}
}

// TestNothingRunsBeforeMain: whoever reads main reads all that happens.
func TestNothingRunsBeforeMain(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				t.Errorf("%s:%d: init runs before anybody asked for it", f.path, f.line(d.Pos()))
			}
		}
	}
}

// TestPackageVariablesStay: a package variable is an error or a value that is
// never assigned again, and others cannot reach it.
func TestPackageVariablesStay(t *testing.T) {
	t.Parallel()
	variables := map[string]bool{} // by folder and name
	files := sources(t)
	for _, f := range files {
		for _, name := range packageVariables(f) {
			variables[filepath.Dir(f.path)+" "+name.Name] = true
			if name.IsExported() && !strings.HasPrefix(name.Name, "Err") {
				t.Errorf("%s:%d: everybody can change the package variable %s", f.path, f.line(name.Pos()), name.Name)
			}
		}
	}
	for _, f := range files {
		if f.test() {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			for _, name := range assigned(n) {
				if variables[filepath.Dir(f.path)+" "+name.Name] {
					t.Errorf("%s:%d: assigns to %s, which is a package variable or called like one", f.path, f.line(name.Pos()), name.Name)
				}
			}
			return true
		})
	}
}

// packageVariables returns the variables that a file declares for its package.
func packageVariables(f sourceFile) []*ast.Ident {
	var names []*ast.Ident
	for _, d := range f.Decls {
		d, ok := d.(*ast.GenDecl)
		if !ok || d.Tok != token.VAR || f.test() {
			continue
		}
		for _, spec := range d.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names { // the only kind below var
				if name.Name != "_" {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// assigned returns the names whose value, element or field a statement changes.
func assigned(n ast.Node) []*ast.Ident {
	var targets []ast.Expr
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			targets = n.Lhs
		}
	case *ast.IncDecStmt:
		targets = []ast.Expr{n.X}
	}
	var names []*ast.Ident
	for _, e := range targets {
		for {
			if index, ok := e.(*ast.IndexExpr); ok {
				e = index.X
			} else if field, ok := e.(*ast.SelectorExpr); ok {
				e = field.X
			} else {
				break
			}
		}
		if name, ok := e.(*ast.Ident); ok {
			names = append(names, name)
		}
	}
	return names
}

// directives returns a comment with its directives, which Text leaves out.
func directives(g *ast.CommentGroup) string {
	if g == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text + "\n")
	}
	return b.String()
}
