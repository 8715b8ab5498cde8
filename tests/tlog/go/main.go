// Reads a published log with Go's own checksum database code, which nobody here wrote, and checks inclusion
// and growth: go run . FOLDER KEY ORIGIN...
//
// FOLDER/ORIGIN holds what the log serves (checkpoint, tile/...), FOLDER/ORIGIN/old an earlier checkpoint.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tiles reads tiles from a folder, as C2SP names them: Go's names have the height in them.
type tiles struct{ folder string }

func (tiles) Height() int                     { return 8 }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) path(level, goPath string) string {
	rest := strings.SplitN(goPath, "/", 4)[3]
	return filepath.Join(t.folder, "tile", level, rest)
}

func (t tiles) ReadTiles(wanted []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range wanted {
		bytes, err := os.ReadFile(t.path(strconv.Itoa(tile.L), tile.Path()))
		if err != nil {
			return nil, err
		}
		data = append(data, bytes)
	}
	return data, nil
}

// entry reads a record from its bundle in a tree of that size.
func (t tiles) entry(index, size int64) ([]byte, error) {
	width := min(size-index/256*256, 256)
	tile := tlog.Tile{H: 8, L: 0, N: index / 256, W: int(width)}
	bundle, err := os.ReadFile(t.path("entries", tile.Path()))
	if err != nil {
		return nil, err
	}
	for range index % 256 {
		bundle = bundle[2+binary.BigEndian.Uint16(bundle):]
	}
	return bundle[2 : 2+binary.BigEndian.Uint16(bundle)], nil
}

// open verifies a checkpoint and reads its head.
func open(file, key, origin string) (tree tlog.Tree, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return tree, err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return tree, err
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != origin {
		return tree, fmt.Errorf("not a checkpoint of %s: %q", origin, signed.Text)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func check(folder, key, origin string) error {
	tree, err := open(filepath.Join(folder, "checkpoint"), key, origin)
	if err != nil {
		return err
	}
	old, err := open(filepath.Join(folder, "old"), key, origin)
	if err != nil {
		return err
	}
	reader := tiles{folder}
	// This reader verifies every tile against the tree's hash before it believes it.
	hashes, before := tlog.TileHashReader(tree, reader), tlog.TileHashReader(old, reader)
	for _, index := range []int64{0, 1, 255, 256, old.N - 1, old.N, tree.N / 2, tree.N - 257, tree.N - 1} {
		for _, at := range []struct {
			tree   tlog.Tree
			hashes tlog.HashReader
		}{{tree, hashes}, {old, before}} {
			if index >= at.tree.N {
				continue
			}
			record, err := reader.entry(index, at.tree.N)
			if err != nil {
				return err
			}
			proof, err := tlog.ProveRecord(at.tree.N, index, at.hashes)
			if err != nil {
				return fmt.Errorf("leaf %d: %w", index, err)
			}
			if err := tlog.CheckRecord(proof, at.tree.N, at.tree.Hash, index, tlog.RecordHash(record)); err != nil {
				return fmt.Errorf("leaf %d of %d: %w", index, at.tree.N, err)
			}
			other := append(bytes.Clone(record), 0)
			if tlog.CheckRecord(proof, at.tree.N, at.tree.Hash, index, tlog.RecordHash(other)) == nil {
				return fmt.Errorf("leaf %d: another record is proven too", index)
			}
		}
	}
	growth, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(growth, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return err
	}
	fmt.Printf("%s: %d leaves, grown from %d\n", origin, tree.N, old.N)
	return nil
}

func main() {
	if err := check(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
