package oracle

import (
	"crypto/ecdsa"
	"math/big"
)

func bigInt(n int64) *big.Int { return big.NewInt(n) }

func publicBytes(key *ecdsa.PrivateKey) []byte {
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return raw[1:]
}

// debug sets the debug bit in the body of a quote: ATTRIBUTES of an enclave, TD_ATTRIBUTES of a guest.
func debug(enclave bool) func([]byte) {
	return func(b []byte) {
		if enclave {
			b[48] |= 2
		} else {
			b[120] |= 1
		}
	}
}
