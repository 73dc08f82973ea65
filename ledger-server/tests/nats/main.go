// Makes what a server of NATS needs to know users by: an NKey, and an operator with an account and a user's credentials file. Written to the folder that is its argument.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

func main() {
	folder := os.Args[1]
	write := func(name string, content []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, 0o600)
		}
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
	}
	key := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string, []byte) {
		pair, err := create()
		if err != nil {
			log.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			log.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			log.Fatal(err)
		}
		return pair, public, seed
	}
	_, public, seed := key(nkeys.CreateUser)
	write("nkey.public", []byte(public), nil)
	write("nkey.seed", seed, nil)

	operator, operatorName, _ := key(nkeys.CreateOperator)
	account, accountName, _ := key(nkeys.CreateAccount)
	_, userName, userSeed := key(nkeys.CreateUser)
	_, systemName, _ := key(nkeys.CreateAccount)
	chief := jwt.NewOperatorClaims(operatorName)
	chief.SystemAccount = systemName
	operatorJWT, err := chief.Encode(operator)
	write("operator.jwt", []byte(operatorJWT), err)
	systemJWT, err := jwt.NewAccountClaims(systemName).Encode(operator)
	write("system.jwt", []byte(systemJWT), err)
	write("system.public", []byte(systemName), nil)
	claims := jwt.NewAccountClaims(accountName)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := claims.Encode(operator)
	write("account.jwt", []byte(accountJWT), err)
	write("account.public", []byte(accountName), nil)
	userJWT, err := jwt.NewUserClaims(userName).Encode(account)
	if err != nil {
		log.Fatal(err)
	}
	credentials, err := jwt.FormatUserConfig(userJWT, userSeed)
	write("user.creds", credentials, err)
}
