"""Uses of the Python interface that mypy must refuse, each with the error that it must name. Never run."""

from __future__ import annotations

import prune_verify.api as pv

pv.repair("base.onnx", forget="f.npz", radios=0.1, out="out")  # call-arg: an option that there is not
pv.repair("base.onnx", forget="f.npz")  # call-arg: out is needed
pv.repair("base.onnx", forget=3, out="out")  # arg-type: no records
pv.repair("base.onnx", forget="f.npz", family="round", out="out")  # arg-type: no family
pv.repair("base.onnx", forget="f.npz", radius=[0.1], out="out")  # arg-type: no number
pv.certify("patched.onnx", engine="marabou")  # arg-type: no engine
pv.sign("statement.json", "owner.key", key="owner.key")  # misc: the key is named
pv.sign("statement.json")  # call-arg: no key
pv.verify("c.json", trust="t.json", base=3)  # arg-type: no network
pv.verify("c.json")  # call-arg: nothing is trusted by default
pv.measure("speed", "patched.onnx")  # arg-type: no word
pv.audit("http://h", certificate="c.json", trust="t.json", shares=(1, 2))  # arg-type: three shares
pv.trust("trust.json", ["owner.pub"])  # arg-type: whose key is it
pv.repair("base.onnx", out="out").gates = 3  # misc: results are frozen
answer = pv.verify("c.json", trust="t.json").verdict  # attr-defined: a name that there is not
