// Checks a proof file with golang.org/x/mod/sumdb: the Go project's own code for signed notes and for RFC 6962 trees, on
// which C2SP's signed-note and tlog-checkpoint were written. Only the frame of a C2SP tlog-proof and the message of a C2SP
// tlog-cosignature are read here, for that code knows neither.
//
//	go run check.go FILE LOG-KEY LEAF-DATA [WITNESS-KEY...]     keys as in `name+hash+base64`, leaf data in base64
//
// Prints "ok <origin> <index> <size> <time of each cosignature>" and ends with 0, or says what does not hold and ends with 1.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(format string, values ...interface{}) {
	fmt.Printf(format+"\n", values...)
	os.Exit(1)
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func decode(text, what string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	must(err, what)
	return data
}

// A witness's key (type 0x04): its signature is a time of 8 bytes and Ed25519 over "cosignature/v1", that time and the text.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
	time uint64
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }
func (w *witness) Verify(text, signature []byte) bool {
	if len(signature) != 72 {
		return false
	}
	w.time = binary.BigEndian.Uint64(signature)
	message := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", w.time)), text...)
	return ed25519.Verify(w.key, message, signature[8:])
}

func newWitness(text string) *witness {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		fail("witness key: %s", text)
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	must(err, "witness key")
	key := decode(parts[2], "witness key")
	if len(key) != 33 || key[0] != 4 {
		fail("witness key: %s is not of type 4", text)
	}
	return &witness{parts[0], uint32(hash), key[1:], 0}
}

func main() {
	file, err := os.ReadFile(os.Args[1])
	must(err, "file")
	half := bytes.Index(file, []byte("\n\n"))
	if half < 0 {
		fail("no checkpoint")
	}
	var proof tlog.RecordProof
	index := int64(-1)
	for i, line := range strings.Split(string(file[:half]), "\n") {
		switch {
		case i == 0 && line != "c2sp.org/tlog-proof@v1":
			fail("no tlog-proof: %s", line)
		case i == 0 || strings.HasPrefix(line, "extra "):
		case strings.HasPrefix(line, "index "):
			index, err = strconv.ParseInt(line[6:], 10, 64)
			must(err, "index")
		default:
			var hash tlog.Hash
			if copy(hash[:], decode(line, "path")) != tlog.HashSize {
				fail("path: %s", line)
			}
			proof = append(proof, hash)
		}
	}
	writer, err := note.NewVerifier(os.Args[2])
	must(err, "log key")
	known := []note.Verifier{writer}
	var witnesses []*witness
	for _, text := range os.Args[4:] {
		one := newWitness(text)
		witnesses, known = append(witnesses, one), append(known, one)
	}
	signed, err := note.Open(file[half+2:], note.VerifierList(known...))
	must(err, "note")
	if len(signed.UnverifiedSigs) > 0 || len(signed.Sigs) != len(known) {
		fail("note: %d signatures hold, %d are of keys that were not given", len(signed.Sigs), len(signed.UnverifiedSigs))
	}
	lines := strings.Split(signed.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err, "size")
	var root tlog.Hash
	copy(root[:], decode(lines[2], "root"))
	must(tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(decode(os.Args[3], "leaf data"))), "inclusion")
	times := make([]string, len(witnesses))
	for i, one := range witnesses {
		times[i] = strconv.FormatUint(one.time, 10)
	}
	fmt.Println(strings.Join(append([]string{"ok", lines[0], fmt.Sprint(index), fmt.Sprint(size)}, times...), " "))
}
