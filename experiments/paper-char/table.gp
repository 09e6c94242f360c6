# table.gp RESULTS.csv OUT.svg: published validation losses of QAT beside ours under both protocols.
set datafile separator ","
set terminal svg size 760,380 font "sans-serif,13" background rgb "white"
set output ARG2
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top
set xlabel "iteration"
set ylabel "validation loss, nats a token"
set xtics (15500, 19500, 22500)
set xrange [15000:23000]
cell(q, c) = (strcol(1) eq "QAT" && strcol(2) eq q && strcol(4) eq "val") ? column(c) : 1/0
plot for [q in "uniform[-8:7] pot[-8:4]"] ARG1 skip 1 using 3:(cell(q, 5)) with linespoints pt 6 title q.", published", \
     for [q in "uniform[-8:7] pot[-8:4]"] ARG1 skip 1 using 3:(cell(q, 6)):(cell(q, 7)) with yerrorbars pt 7 title q.", last token", \
     for [q in "uniform[-8:7] pot[-8:4]"] ARG1 skip 1 using 3:(cell(q, 8)):(cell(q, 9)) with yerrorbars pt 5 title q.", all tokens"
