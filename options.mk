# Made from harness/config/options.py by `python -m tools.variables_reference`.

BENCH_OPTIONS = \
	$(call option,STRATEGY,strategy) \
	$(call option,MODEL,model) \
	$(call option,WEIGHTS,weights) \
	$(call option,DATA,data) \
	$(call option,READOUT,readout) \
	$(call option,ENGINE,engine) \
	$(call option,ZERO,zero) \
	$(call option,NPROC,nproc) \
	$(call option,NNODES,nnodes) \
	$(call option,NODE_RANK,node-rank) \
	$(call option,RDZV,rdzv) \
	$(call option,HOSTFILE,hostfile) \
	$(call option,SEEDS,seeds) \
	$(call option,REFERENCE,reference) \
	$(call option,METRIC,metric) \
	$(call option,TUNE,tune) \
	$(call option,SIZES,sizes) \
	$(call option,LAYERS,layers) \
	$(call option,EPOCHS,epochs) \
	$(call option,PRECISION,precision) \
	$(call option,CONFIG,config) \
	$(call option,SET,set) \
	$(call option,RESULTS,results) \
	$(call option,CACHE,cache) \
	$(call option,JOBS,jobs) \
	$(call flag,FORCE,force) \
	$(call flag,SAVE,save) \
	$(call option,TRACK,track) \
	$(call flag,FORGETTING,forgetting) \
	$(call option,PRICE,price) \
	$(call flag,QUIET,quiet)

PLAN_OPTIONS = \
	$(call option,STRATEGY,strategy) \
	$(call option,MODEL,model) \
	$(call option,WEIGHTS,weights) \
	$(call option,DATA,data) \
	$(call option,READOUT,readout) \
	$(call option,ENGINE,engine) \
	$(call option,ZERO,zero) \
	$(call option,NPROC,nproc) \
	$(call option,NNODES,nnodes) \
	$(call option,NODE_RANK,node-rank) \
	$(call option,RDZV,rdzv) \
	$(call option,HOSTFILE,hostfile) \
	$(call option,SEEDS,seeds) \
	$(call option,REFERENCE,reference) \
	$(call option,METRIC,metric) \
	$(call option,TUNE,tune) \
	$(call option,SIZES,sizes) \
	$(call option,LAYERS,layers) \
	$(call option,EPOCHS,epochs) \
	$(call option,PRECISION,precision) \
	$(call option,CONFIG,config) \
	$(call option,SET,set) \
	$(call option,RESULTS,results) \
	$(call option,CACHE,cache) \
	$(call option,JOBS,jobs) \
	$(call flag,FORCE,force) \
	$(call flag,SAVE,save) \
	$(call option,TRACK,track) \
	$(call flag,FORGETTING,forgetting) \
	$(call option,DEVICE,device) \
	$(call option,PRICE,price) \
	$(call flag,QUIET,quiet)

REPORT_OPTIONS = \
	$(call option,REFERENCE,reference) \
	$(call option,METRIC,metric) \
	$(call option,RESULTS,results) \
	$(call option,CACHE,cache) \
	$(call option,PRICE,price)

GATE_OPTIONS = \
	$(call option,REFERENCE,reference) \
	$(call option,CONFIG,config) \
	$(call option,RESULTS,results) \
	$(call option,CACHE,cache)

DATA_OPTIONS = \
	$(call option,MODEL,model) \
	$(call option,SET,set) \
	$(call option,CACHE,cache)
