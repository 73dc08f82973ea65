// An OpenID provider for tests: any name logs in with any password, and is of the group `audit`, but `bob`, who is of none.
// Arguments: key and certificate (PEM files), the client's secret, and where the client's browsers come back to. Prints its port.
import fs from "node:fs";
import https from "node:https";
import Provider from "oidc-provider";

const [key, cert, secret, back] = process.argv.slice(2);
let serve;
const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => serve(request, response));
server.listen(0, "127.0.0.1", () => {
  const port = server.address().port;
  const provider = new Provider(`https://localhost:${port}`, {
    clients: [{ client_id: "console", client_secret: secret, redirect_uris: [back], grant_types: ["authorization_code"], response_types: ["code"] }],
    claims: { openid: ["sub", "groups"], email: ["email", "email_verified"], profile: ["name"] },
    conformIdTokenClaims: false,
    cookies: { keys: ["test"] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: id !== "eve", groups: id === "bob" ? [] : ["audit"] }) }),
  });
  serve = provider.callback();
  console.log(port);
});
