package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/jurat-tls/jurat/attest/tpm"
)

// tpmRoots reads the certificates of authorities for TPM keys.
func (a *app) readTPMRoots(files []string) (*tpm.Roots, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var ders [][]byte
	for _, file := range files {
		raw, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		block, rest := pem.Decode(raw)
		if block == nil {
			ders = append(ders, raw)
		}
		for ; block != nil; block, rest = pem.Decode(rest) {
			ders = append(ders, block.Bytes)
		}
	}
	return tpm.NewRoots(ders...)
}

// rows flattens decoded evidence for people: one line for each value, named by the way to it.
func rows(decoded any) ([][2]string, error) {
	raw, err := json.Marshal(decoded)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var out [][2]string
	if err := flatten(dec, "", &out); err != nil {
		return nil, err
	}
	return out, nil
}

// flatten reads one value in the order in which it is written.
func flatten(dec *json.Decoder, name string, out *[][2]string) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, nested := tok.(json.Delim)
	if !nested {
		if tok != nil && tok != "" {
			*out = append(*out, [2]string{name, fmt.Sprint(tok)})
		}
		return nil
	}
	for i := 0; dec.More(); i++ {
		key := fmt.Sprint(i)
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ = tok.(string)
		}
		if err := flatten(dec, strings.TrimSpace(name+" "+strings.ReplaceAll(key, "_", " ")), out); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// parts reads NAME=FILE.
func (a *app) parts(list []string) (map[string][]byte, error) {
	var out map[string][]byte
	for _, p := range list {
		name, file, ok := strings.Cut(p, "=")
		if !ok || name == "" || out[name] != nil {
			return nil, usageError("--part %.60q is no NAME=FILE, or the name stands twice", p)
		}
		raw, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = raw
	}
	return out, nil
}
