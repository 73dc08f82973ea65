// Peer is the other side of the ledger's formats: it reads a log that Chaperone wrote, and writes one for Chaperone to read, with the libraries that Go's checksum database and
// the witness network run on.
//
//	peer read DIR ORIGIN VKEY...     checks checkpoint, entries, tiles and DIR/proofs, and prints the entries
//	peer write DIR ORIGIN SIZE       writes checkpoint, entries, tiles, proofs and vkeys
//
// A line of proofs is `inclusion INDEX SIZE LEAF ROOT HASH...` or `consistency OLD NEW OLDROOT NEWROOT HASH...`, hashes in base64.
package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("peer: ")
	if len(os.Args) < 5 {
		log.Fatal("usage: peer read DIR ORIGIN VKEY... | peer write DIR ORIGIN SIZE")
	}
	switch os.Args[1] {
	case "read":
		read(os.Args[2], os.Args[3], os.Args[4:])
	case "write":
		write(os.Args[2], os.Args[3], number(os.Args[4]))
	default:
		log.Fatalf("no such command: %s", os.Args[1])
	}
}

func read(dir, origin string, keys []string) {
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	fetcher := must(torchwood.NewTileFetcher(server.URL))
	client := must(torchwood.NewClient(fetcher))
	ctx := context.Background()

	signed := must(fetcher.ReadEndpoint(ctx, "checkpoint"))
	opened := must(note.Open(signed, verifiers(keys)))
	if len(opened.Sigs) != len(keys) {
		log.Fatalf("%d signatures verify, not %d", len(opened.Sigs), len(keys))
	}
	checkpoint := must(torchwood.ParseCheckpoint(opened.Text))
	if checkpoint.Origin != origin {
		log.Fatalf("the origin is %q", checkpoint.Origin)
	}
	// The client checks each tile and entry against the root.
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	count := int64(0)
	for index, entry := range client.Entries(ctx, checkpoint.Tree, 0) {
		fmt.Fprintf(out, "%d %s\n", index, entry)
		count++
	}
	check(client.Err())
	// Entries leaves out what is not a full tile yet, where there is more.
	for ; count < checkpoint.N; count++ {
		entry, _, err := client.Entry(ctx, checkpoint.Tree, count)
		check(err)
		fmt.Fprintf(out, "%d %s\n", count, entry)
	}
	readProofs(filepath.Join(dir, "proofs"))
}

func readProofs(path string) {
	file := must(os.Open(path))
	defer file.Close()
	lines := bufio.NewScanner(file)
	count := 0
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		a, b := number(words[1]), number(words[2])
		x, y := hash(words[3]), hash(words[4])
		var proof []tlog.Hash
		for _, word := range words[5:] {
			proof = append(proof, hash(word))
		}
		switch words[0] {
		case "inclusion":
			check(tlog.CheckRecord(proof, b, y, a, x))
		case "consistency":
			check(tlog.CheckTree(proof, b, y, a, x))
		default:
			log.Fatalf("no such proof: %s", words[0])
		}
		count++
	}
	check(lines.Err())
	if count == 0 {
		log.Fatal("there are no proofs")
	}
}

func write(dir, origin string, size int64) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	check(err)
	signer := must(note.NewSigner(skey))
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	witness := must(torchwood.NewCosignatureSigner("witness.example/w1", private))

	hashes := storedHashes{}
	var entries [][]byte
	for index := range size {
		entry := fmt.Appendf(nil, "entry %d", index)
		entries = append(entries, entry)
		hashes = append(hashes, must(tlog.StoredHashes(index, entry, hashes))...)
	}
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, 0, size) {
		put(dir, torchwood.TilePath(tile), must(tlog.ReadTileData(tile, hashes)))
	}
	for start := int64(0); start < size; start += torchwood.TileWidth {
		width := min(torchwood.TileWidth, size-start)
		tile := tlog.Tile{H: torchwood.TileHeight, L: -1, N: start / torchwood.TileWidth, W: int(width)}
		var bundle []byte
		for _, entry := range entries[start : start+width] {
			bundle = must(torchwood.AppendTileEntry(bundle, entry))
		}
		put(dir, torchwood.TilePath(tile), bundle)
	}
	root := must(tlog.TreeHash(size, hashes))
	text := torchwood.Checkpoint{Origin: origin, Tree: tlog.Tree{N: size, Hash: root}}.String()
	put(dir, "checkpoint", must(note.Sign(&note.Note{Text: text}, signer, witness)))
	put(dir, "vkeys", []byte(vkey+"\n"+witness.Verifier().String()+"\n"))
	put(dir, "skey", []byte(skey+"\n"))
	put(dir, "proofs", []byte(proofs(size, root, hashes)))
}

func proofs(size int64, root tlog.Hash, hashes storedHashes) string {
	var out strings.Builder
	line := func(kind string, a, b int64, x, y tlog.Hash, proof []tlog.Hash) {
		fmt.Fprintf(&out, "%s %d %d %s %s", kind, a, b, x, y)
		for _, hash := range proof {
			fmt.Fprintf(&out, " %s", hash)
		}
		out.WriteString("\n")
	}
	for n := range size {
		leaf := must(hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, n)}))[0]
		line("inclusion", n, size, leaf, root, must(tlog.ProveRecord(size, n, hashes)))
		older := must(tlog.TreeHash(n+1, hashes))
		line("consistency", n+1, size, older, root, must(tlog.ProveTree(size, n+1, hashes)))
	}
	return out.String()
}

type storedHashes []tlog.Hash

func (all storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, index := range indexes {
		out = append(out, all[index])
	}
	return out, nil
}

func verifiers(keys []string) note.Verifiers {
	var all []note.Verifier
	for _, key := range keys {
		if verifier, err := note.NewVerifier(key); err == nil {
			all = append(all, verifier)
		} else {
			all = append(all, cosigner(key))
		}
	}
	return note.VerifierList(all...)
}

// A cosigner's verifier can be made from its private key alone; the argument is NAME=SEED in hex then.
func cosigner(key string) note.Verifier {
	name, seed, found := strings.Cut(key, "=")
	if !found {
		log.Fatalf("neither a vkey nor NAME=SEED: %s", key)
	}
	var bytes []byte
	_, err := fmt.Sscanf(seed, "%x", &bytes)
	check(err)
	signer := must(torchwood.NewCosignatureSigner(name, ed25519.NewKeyFromSeed(bytes)))
	return signer.Verifier()
}

func hash(text string) tlog.Hash { return must(tlog.ParseHash(text)) }

func number(text string) int64 { return must(strconv.ParseInt(text, 10, 64)) }

func put(dir, name string, content []byte) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	check(os.MkdirAll(filepath.Dir(path), 0o755))
	check(os.WriteFile(path, content, 0o644))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
